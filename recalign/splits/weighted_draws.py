"""Repeated weighted draws of items by tables, and the first new ones of each row, for many rows."""

from dataclasses import dataclass

import numpy as np

FINENESS = 16
"""Entries of the table per item: the more, the rarer an entry that leaves the item open, but
with four times as many the table no longer fits the processor's nearest cache."""


@dataclass(frozen=True)
class WeightedDraws:
    """Draws of item 1..n in proportion to `weights` [n + 1] (0 at padding), by inversion.

    `cumulated` are the sums of weights; `first[b]` is the item that part b of [0, total) begins in,
    as -1 - item where the part ends in another one: only there the item is searched for.
    """

    weights: np.ndarray
    cumulated: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray) -> "WeightedDraws":
        cumulated = np.cumsum(weights)
        n_parts = FINENESS * len(weights)
        parts = _parts(cumulated, cumulated[-1], n_parts)
        below = np.searchsorted(parts, np.arange(n_parts + 2)).astype(np.int32)
        first = np.minimum(below[:-1], len(weights) - 1)
        return cls(weights, cumulated, np.where(below[1:] > below[:-1], -1 - first, first))

    def __call__(self, uniform: np.ndarray) -> np.ndarray:
        """The items, int32, that `uniform` in [0, 1), of any shape, stand for."""
        at = uniform.ravel() * self.cumulated[-1]
        items = self.first.take(_parts(at, self.cumulated[-1], len(self.first) - 1))
        open_ones = np.flatnonzero(items < 0)
        found = np.searchsorted(self.cumulated, at[open_ones], side="right")
        items[open_ones] = np.minimum(found, len(self.weights) - 1)
        return items.reshape(uniform.shape)

    def enough(self, n: int, most: int) -> int:
        """How many draws mostly bring `n` items that are new, with an eighth of them to spare."""
        shares = self.weights / (self.cumulated[-1] or 1.0)
        for draws in range(n + n // 8 + 8, most, 8):
            if (1 - (1 - shares) ** draws).sum() >= n + n // 8:
                return draws
        return most


def _parts(at: np.ndarray, total: float, n: int) -> np.ndarray:
    """In which of `n` equal parts of [0, total] each of `at` lies, from 0; the end is part n."""
    return np.minimum((at * (n / (total or 1.0))).astype(np.int32), n)


def first_new(drawn: np.ndarray, taken: np.ndarray, n: int, n_items: int) -> np.ndarray:
    """The first `n` items of each row of `drawn` [R, W] that are new, int32 [R, n].

    New is what is neither in the same row of `taken` [R, L] nor further left in `drawn`; 0 is no
    item, and fills the end of a row with fewer. W is at least n.

    Sorted by item and order, equal items are neighbours; sorted back by order, the new ones of a
    row come first. Both fit one integer, for which NumPy's sort is fastest.
    """
    order_bits, item_bits = drawn.shape[1].bit_length(), n_items.bit_length()
    dtype = np.int32 if order_bits + item_bits < 31 else np.int64
    known = taken.shape[1]
    keys = np.empty((len(drawn), known + drawn.shape[1]), dtype=dtype)
    np.left_shift(taken, order_bits, out=keys[:, :known], dtype=dtype)
    np.left_shift(drawn, order_bits, out=keys[:, known:], dtype=dtype)
    keys[:, known:] |= np.arange(1, drawn.shape[1] + 1, dtype=dtype)
    keys.sort(axis=1)
    items, order = keys >> order_bits, keys & ((1 << order_bits) - 1)
    new = order > 0
    new[:, 1:] &= items[:, 1:] != items[:, :-1]
    last = np.iinfo(dtype).max
    order <<= item_bits
    order |= items
    order[~new] = last
    order.sort(axis=1)
    by_order = order[:, :n]
    return np.where(by_order == last, 0, by_order & ((1 << item_bits) - 1)).astype(np.int32)
