"""Which (user, position) make a pair: drawn once, the same for every strategy."""

import numpy as np
import polars as pl

from recalign.seeding import derive_seed


def draw_positions(windows: pl.DataFrame, n_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `n_pairs` users and positions, int64 [n] each, in order of (user, position).

    windows: the WINDOWS table. Positions stand in [fit_start, valid_start) of prompted users:
    after everything that the oracle and the SFT model learnt from, before validation. All users
    give one position before any gives a second. Every position has a draw of its own: a smaller
    `n_pairs` takes a part of the same pairs, and other users do not matter.
    """
    kept = windows.filter("prompted").sort("user_index")
    users, starts, ends = (
        kept[name].to_numpy().astype(np.int64)
        for name in ("user_index", "fit_start", "valid_start")
    )
    sizes = ends - starts
    rows = np.repeat(np.arange(len(users)), sizes)
    positions = starts[rows] + np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    draws = np.array(
        [
            derive_seed(seed, "pairs", int(user), int(position))
            for user, position in zip(users[rows], positions, strict=True)
        ],
        dtype=np.int64,
    )
    by_user = np.lexsort((draws, rows))
    turn = np.empty(len(rows), dtype=np.int64)  # a user's first, second, ... draw
    turn[by_user] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = np.sort(np.lexsort((draws, turn))[:n_pairs])
    return users[rows[taken]], positions[taken]
