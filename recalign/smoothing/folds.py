"""User folds: who is scored by which oracle, and up to where each oracle may read."""

import numpy as np

from recalign.seeding import derive_seed

FOLDS = "folds.parquet"  # user_index, fold
STOPS = "stops.parquet"  # in each fold's folder: user_index, stop of what its oracle read


def fold_name(fold: int) -> str:
    """The folder of a fold's oracle."""
    return f"fold-{fold}"


def folds_of(n_users: int, n_folds: int, seed: int) -> np.ndarray:
    """The fold of every user, int64 [n_users]: drawn for each user independently."""
    return np.array(
        [derive_seed(seed, "fold", user) % n_folds for user in range(n_users)], np.int64
    )


def stops_of(
    folds: np.ndarray, fold: int, fit_starts: np.ndarray, valid_starts: np.ndarray
) -> np.ndarray:
    """Where the oracle of `fold` stops reading each user, int64 [n_users].

    Everything before validation for users of other folds; only the history window for users of
    its own fold, whose pairs it will score.
    """
    return np.where(folds == fold, fit_starts, valid_starts).astype(np.int64)
