"""(prompt, reasoning) demonstrations for the embedded policy, from the history windows only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.config import BootstrapConfig
from recalign.embedded.reasoners import REASONERS, facets_of, reasonings_by_rule
from recalign.errors import UserError
from recalign.seeding import stream
from recalign.sequences import Sequences


@dataclass(frozen=True)
class Demonstrations:
    """Reasoning d is what a reasoner writes about the history that prompt d shows."""

    prompts: list[str]
    reasonings: list[str]
    n_silent: int = 0  # histories about which no reasoner has anything to write


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


def choose_histories(
    sequences: Sequences, config: BootstrapConfig, min_items: int
) -> list[np.ndarray]:
    """`n_prompts` histories by `choose_prefixes`: the last `history_items` before each cutoff."""
    users, cutoffs = choose_prefixes(sequences.lengths, config.n_prompts, min_items, config.seed)
    return [
        sequences.slice(user, cutoff - config.history_items, cutoff)
        for user, cutoff in zip(users.tolist(), cutoffs.tolist(), strict=True)
    ]


def build_demonstrations(
    items: pl.DataFrame,
    histories: list[np.ndarray],
    render: Callable[[Sequence[int]], str],
    seed: int,
) -> Demonstrations:
    """A prompt and what each reasoner makes of it, for each history: five of a prompt at most.

    `render` writes the prompt of a history. Several texts of one prompt teach the policy to vary,
    and cost little more than one. Histories without any attribute are left out.
    """
    facets = facets_of(items)
    prompts = [render(history.tolist()) for history in histories]
    written = [reasonings_by_rule(name, facets, histories, seed) for name in REASONERS]
    told = [[text for text in texts if text] for texts in zip(*written, strict=True)]
    return Demonstrations(
        [prompt for prompt, texts in zip(prompts, told, strict=True) for _ in texts],
        [text for texts in told for text in texts],
        sum(not texts for texts in told),
    )
