"""Which (user, position) make a pair: drawn once, the same for every strategy."""

import numpy as np
import polars as pl

from recalign.errors import UserError
from recalign.seeding import derive_seed


def draw_positions(windows: pl.DataFrame, n_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `n_pairs` users and positions, int64 [n] each, in order of (user, position).

    windows: the WINDOWS table. Positions stand in [reward_start, valid_start) of prompted users:
    after all that the oracle was fitted, stopped and calibrated on, before validation. All users
    give one position before any gives a second. Every position has a draw of its own: a smaller
    `n_pairs` takes a part of the same pairs. Other users decide how many positions of a user are
    taken where `n_pairs` is fewer than there are, but not in which order.
    """
    users, positions, draws = _drawn(windows, "reward_start", seed)
    taken = np.sort(np.lexsort((draws, _turns(users, draws)))[:n_pairs])
    return users[taken], positions[taken]


def fresh_positions(
    windows: pl.DataFrame, n_pairs: int, seed: int, matched: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As many users and positions as `matched` [m] names users, none that `draw_positions` gives.

    They stand in [fit_start, valid_start). Every user gives as many as `matched` has of it, as far
    as it can; what is missing is taken from other users, those with the fewest first. Fewer than m
    where there are no others left; UserError where there is none at all.
    """
    users, positions, draws = _drawn(windows, "fit_start", seed)
    given = set(
        zip(*(part.tolist() for part in draw_positions(windows, n_pairs, seed)), strict=True)
    )
    pairs = zip(users.tolist(), positions.tolist(), strict=True)
    free = np.array([pair not in given for pair in pairs], dtype=bool)
    if not free.any():
        raise UserError(
            "rejections: no item is left for the control on fresh items: raise splits.fit (by time:"
            " splits.fit_share), or lower rejections.n_pairs"
        )
    users, positions, draws = users[free], positions[free], draws[free]
    turns = _turns(users, draws)
    wanted = np.bincount(matched, minlength=users.max(initial=0) + 1)[users]
    taken = np.sort(np.lexsort((draws, turns, turns >= wanted))[: len(matched)])
    return users[taken], positions[taken]


def _drawn(
    windows: pl.DataFrame, start: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, positions in [start, valid_start) and the draw of each, int64 [n], in that order."""
    kept = windows.filter("prompted").sort("user_index")
    users, starts, ends = (
        kept[name].to_numpy().astype(np.int64) for name in ("user_index", start, "valid_start")
    )
    sizes = ends - starts
    rows = np.repeat(np.arange(len(users)), sizes)
    positions = starts[rows] + np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    draws = [
        derive_seed(seed, "pairs", int(user), int(position))
        for user, position in zip(users[rows], positions, strict=True)
    ]
    return users[rows], positions, np.array(draws, dtype=np.int64)


def _turns(users: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Which of its user's draws each is, from 0: int64 [n]; users [n] are sorted."""
    turns = np.empty(len(users), dtype=np.int64)
    first = np.searchsorted(users, users)
    turns[np.lexsort((draws, users))] = np.arange(len(users)) - first
    return turns
