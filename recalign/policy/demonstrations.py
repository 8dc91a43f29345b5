"""(prompt, reasoning) demonstrations for the embedded policy, from the history windows only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.errors import UserError
from recalign.policy.templates import REASONERS, facets_of, reasonings_from
from recalign.seeding import stream
from recalign.sequences import Sequences


@dataclass(frozen=True)
class Demonstrations:
    """Demonstration d shows user `users[d]` at positions below `cutoffs[d]`."""

    users: np.ndarray  # [D]
    cutoffs: np.ndarray  # [D] exclusive
    reasoners: list[str]
    prompts: list[str]
    reasonings: list[str]


def choose_prefixes(
    stops: np.ndarray, n: int, min_items: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`n` random (user, cutoff): int64 [n] each, cutoffs in min_items..stops[user].

    stops: [n_users] where each user's history window ends (exclusive); users with fewer than
    `min_items` are left out. All prefixes are equally likely, each is drawn once before any is
    drawn twice. UserError when no user has `min_items`.
    """
    counts = np.maximum(stops.astype(np.int64) - min_items + 1, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        raise UserError(
            f"no user has the {min_items} items in the history window that demonstrations need"
        )
    rng = stream(seed, "demonstrations", "prefixes")
    rounds = [rng.permutation(total) for _ in range(-(-n // total))]
    drawn = np.concatenate(rounds)[:n]
    users = np.searchsorted(ends, drawn, side="right")
    return users, min_items + drawn - (ends - counts)[users]


def build_demonstrations(
    items: pl.DataFrame,
    sequences: Sequences,
    users: np.ndarray,
    cutoffs: np.ndarray,
    history_items: int,
    render: Callable[[Sequence[int]], str],
    seed: int,
) -> Demonstrations:
    """A prompt and one reasoner's text for each (user, cutoff); the reasoners take turns.

    Both see the last `history_items` items before the cutoff and nothing else; `render` writes
    the prompt of the shown items. Histories without any attribute are left out.
    """
    facets = facets_of(items)
    histories = [
        sequences.slice(user, cutoff - history_items, cutoff)
        for user, cutoff in zip(users.tolist(), cutoffs.tolist(), strict=True)
    ]
    turns = stream(seed, "demonstrations", "reasoners").permutation(len(histories)) % len(REASONERS)
    texts = [""] * len(histories)
    for turn, name in enumerate(REASONERS):
        rows = np.flatnonzero(turns == turn)
        written = reasonings_from(name, facets, [histories[row] for row in rows], seed)
        for row, text in zip(rows.tolist(), written, strict=True):
            texts[row] = text
    kept = [row for row, text in enumerate(texts) if text]
    return Demonstrations(
        users[kept],
        cutoffs[kept],
        [REASONERS[turns[row]] for row in kept],
        [render(histories[row].tolist()) for row in kept],
        [texts[row] for row in kept],
    )
