"""(prompt, reasoning) demonstrations for the embedded policy, from the history windows only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.embedded.reasoners import REASONERS, Reasoner, facets_of, reasonings_from
from recalign.errors import UserError
from recalign.seeding import stream
from recalign.sequences import Sequences


@dataclass(frozen=True)
class Demonstrations:
    """Demonstration d shows user `users[d]` at positions below `cutoffs[d]`."""

    users: np.ndarray  # [D]
    cutoffs: np.ndarray  # [D] exclusive
    reasoners: list[Reasoner]
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
    """A prompt and what each reasoner makes of it, for each (user, cutoff) [P]: D = 5 P at most.

    All see the last `history_items` items before the cutoff and nothing else; `render` writes the
    prompt of the shown items. Several texts of one prompt teach the policy to vary, and cost
    little more than one. Histories without any attribute are left out.
    """
    facets = facets_of(items)
    histories = [
        sequences.slice(user, cutoff - history_items, cutoff)
        for user, cutoff in zip(users.tolist(), cutoffs.tolist(), strict=True)
    ]
    prompts = [render(history.tolist()) for history in histories]
    written = [reasonings_from(name, facets, histories, seed) for name in REASONERS]
    kept = [
        (row, name, texts[row])
        for row in range(len(histories))
        for name, texts in zip(REASONERS, written, strict=True)
        if texts[row]
    ]
    rows = [row for row, _, _ in kept]
    return Demonstrations(
        users[rows],
        cutoffs[rows],
        [name for _, name, _ in kept],
        [prompts[row] for row in rows],
        [text for _, _, text in kept],
    )
