"""Cases: one next item each, asked for with everything its user took before it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.schemas import PROMPTS
from recalign.sequences import Sequences


@dataclass(frozen=True)
class Cases:
    """N cases, those of a user together and in order of time, all arrays int64 [N].

    sequences: all that the users took; users: user_index; positions of the targets in their users'
    sequences; targets: items; numbers: how many cases of the same user come before.
    """

    sequences: Sequences
    users: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def seen(self, where: np.ndarray) -> np.ndarray:
        """What users of the cases at `where` [n] took before, the target aside: int64 [n, L].

        0 padded. A target taken before stays recommendable, else nobody could be right about it.
        """
        users, stops = self.users[where], self.positions[where]
        items, _ = self.sequences.until(users, stops, int(stops.max(initial=1)))
        return np.where(items == self.targets[where, None], 0, items)

    def prompts(self, n_shown: int, write: Callable[[int, list[int]], str]) -> pl.DataFrame:
        """PROMPTS: `write(case, items)` of the last `n_shown` items before each target."""
        first = np.maximum(self.positions - n_shown, 0)
        shown = [i.tolist() for i in self.sequences.slices(self.users, first, self.positions)]
        texts = [write(case, items) for case, items in enumerate(shown)]
        return pl.DataFrame([self.users, self.positions, first, shown, texts], schema=PROMPTS)


def cases_of(
    sequences: Sequences, users: np.ndarray, starts: np.ndarray, ends: np.ndarray, n_cases: int
) -> Cases:
    """The first `n_cases` (0: all) items of each user's window starts..ends-1, all int64 [U]."""
    counts = ends - starts
    if n_cases:
        counts = np.minimum(counts, n_cases)
    numbers = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    positions = np.repeat(starts, counts) + numbers
    owners = np.repeat(users, counts)
    targets = sequences.items[sequences.offsets[owners] + positions]
    return Cases(sequences, owners, positions, targets, numbers)
