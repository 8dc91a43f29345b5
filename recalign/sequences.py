"""Every user's items in order of time, in one flat array (CSR): no Python list per user."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Sequences:
    """Chronological item sequences of all users.

    `items[offsets[u]:offsets[u + 1]]` are the item indices (1..n_items; 0 is padding) of user
    `u` (0..n_users-1); a *position* counts from 0 inside one user's sequence.
    """

    offsets: np.ndarray
    items: np.ndarray
    n_items: int

    @classmethod
    def of(cls, interactions: pl.DataFrame, n_items: int) -> "Sequences":
        """Build from the `interactions` table (sorted by user_index, position)."""
        users = interactions["user_index"].to_numpy()
        n_users = int(users.max()) + 1 if len(users) else 0
        offsets = np.zeros(n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=offsets[1:])
        return cls(offsets, interactions["item_index"].to_numpy().astype(np.int64), n_items)

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of interactions of each user, int64 [n_users]."""
        return np.diff(self.offsets)

    def slice(self, user: int, start: int, stop: int) -> np.ndarray:
        """Items of `user` at positions start..stop-1 (clipped to the sequence)."""
        first, last = self.offsets[user], self.offsets[user + 1]
        return self.items[min(first + max(start, 0), last) : min(first + max(stop, 0), last)]

    def slices(self, users: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> list[np.ndarray]:
        """Items of each of `users` [n] at its positions starts..stops-1, all int64 [n]."""
        places = zip(users.tolist(), starts.tolist(), stops.tolist(), strict=True)
        return [self.slice(*place) for place in places]

    def until(
        self, users: np.ndarray, stops: np.ndarray, max_length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The last `max_length` items before position `stops[b]` of each of `users`.

        Returns right-padded int64 [B, L] (L = the longest actually needed, at least 1) and
        lengths int64 [B].
        """
        stops = np.minimum(stops, self.lengths[users])
        lengths = np.minimum(stops, max_length)
        return self.window(users, stops - lengths, lengths), lengths

    def window(self, users: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The `lengths[b]` items of each user from position `starts[b]` on, int64 [B, L], 0 padded.

        L is the largest length, at least 1.
        """
        columns = np.arange(int(lengths.max(initial=1)))
        inside = columns < lengths[:, None]
        rows = (self.offsets[users] + starts)[:, None] + columns
        return np.where(inside, self.items[np.where(inside, rows, 0)], 0)

    def taken_after(
        self, users: np.ndarray, positions: np.ndarray, items: np.ndarray
    ) -> np.ndarray:
        """Whether each user takes the item after the position, bool [n]; all int64 [n]."""
        rest = self.slices(users, positions + 1, self.lengths[users])
        return np.array([(own == item).any() for own, item in zip(rest, items, strict=True)], bool)

    def counts(self) -> np.ndarray:
        """How often each item occurs, int64 [n_items + 1] (0 at padding)."""
        return np.bincount(self.items, minlength=self.n_items + 1)

    def before(self, stops: np.ndarray) -> "Sequences":
        """Only the items at positions < `stops[u]` of every user: what a fit may hold in hand."""
        lengths = np.minimum(stops, self.lengths)
        offsets = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Sequences(
            offsets, self.items[np.repeat(self.offsets[:-1], lengths) + positions], self.n_items
        )


@dataclass(frozen=True)
class Before:
    """What `users` [N] took before positions `stops` [N], padded only for the rows asked for.

    Of all users at once the table would be as wide as the longest sequence.
    """

    sequences: Sequences
    users: np.ndarray
    stops: np.ndarray

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Items of these rows, int64 [n, L], 0 padded."""
        stops = self.stops[rows]
        return self.sequences.until(self.users[rows], stops, int(stops.max(initial=1)))[0]


def padded_items(lists: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Lists of items as one int64 [n, T] array, padded with 0 on the right (T at least 1)."""
    lengths = np.array([len(items) for items in lists], dtype=np.int64)
    table = np.zeros((len(lists), max(1, int(lengths.max(initial=0)))), dtype=np.int64)
    if lengths.sum():
        table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate(lists)
    return table
