"""The k-core: every user and every item left has at least k interactions."""

import numpy as np


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Rows (ascending) of the largest subset in which each user and item occurs k times or more.

    users, items: int64 [n], small non-negative codes. Repeats until nothing more falls away.
    """
    rows = np.arange(len(users))
    while True:
        n_before = len(rows)
        for codes in (users, items):
            present = codes[rows]
            counts = np.bincount(present, minlength=1)
            rows = rows[counts[present] >= k]
        if len(rows) == n_before:
            return rows
