"""The k-core: every user and every item left has at least k interactions."""

import numpy as np

from recalign.interactions.order import counted


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Whether each row is in the largest subset in which users and items occur k times or more.

    users, items: integers [n], small non-negative codes. Returns bool [n]. Each round takes out
    the rows of all users, then of all items, that occur too rarely, until nothing falls away.
    """
    kept = np.ones(len(users), dtype=bool)
    counts = [counted(codes, int(codes.max(initial=0)) + 1) for codes in (users, items)]
    while True:
        n_fallen = 0
        for codes, count in zip((users, items), counts, strict=True):
            rare = (count > 0) & (count < k)
            if not rare.any():
                continue
            fallen = np.flatnonzero(rare[codes] & kept)
            kept[fallen] = False
            for other, left in zip((users, items), counts, strict=True):
                left -= counted(other[fallen], len(left))
            n_fallen += len(fallen)
        if not n_fallen:
            return kept
