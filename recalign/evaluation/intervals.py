"""95 % intervals by the bootstrap over users: paired, and for many columns at once."""

from collections.abc import Iterator

import numpy as np

from recalign.metric_columns import FEWEST_USERS
from recalign.seeding import derive_seed

CHUNK_DRAWS = 1 << 21  # drawn users held at a time: 16 MB of indices, and as much of counts
TAILS = (0.025, 0.975)
Measured = tuple[float, float | None, float | None]
"""A mean and its bounds."""


def mean_interval(values: np.ndarray, n_resamples: int, seed: int) -> Measured:
    """Mean of `values` [U] over users, and its 95 % percentile interval (Efron 1979).

    None of fewer than FEWEST_USERS: a handful, drawn again and again, shows too little of how much
    users differ, one of them nothing at all.
    """
    draws, mean = resampled_means(values[:, None], n_resamples, seed), float(values.mean())
    if len(values) < FEWEST_USERS:
        return mean, None, None
    low, high = np.quantile(draws, TAILS)
    return mean, float(low), float(high)


def resampled_means(values: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Means over users drawn with replacement: float64 [n_resamples, M] of `values` [U, M].

    All columns see the same drawn users, so differences of columns are paired. How often each user
    is drawn is counted once and multiplied with all columns, so that a hundred columns cost little
    more than one; memory is bounded whatever U. What training seeds do to a mean is not in it.
    ValueError: no user, or a NaN (a user without targets has no metric: leave the user out, and
    say so).
    """
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values {values.shape} hold no users to resample")
    if n_missing := int(np.isnan(values).any(1).sum()):
        raise ValueError(f"{n_missing} of {len(values)} users have a NaN: leave them out first")
    drawn = drawn_counts(len(values), n_resamples, derive_seed(seed, "bootstrap", 0))
    return np.concatenate([counts @ values for counts in drawn]) / len(values)


def drawn_counts(n_users: int, n_resamples: int, seed: int, width: int = 0) -> Iterator[np.ndarray]:
    """How often each user is drawn, float64 [rows, U], one chunk of resamples after the other.

    width: the most values that are made of each row, if there are more than users.
    """
    # One stream read in order: the outcome does not depend on the size of the chunks.
    draws = np.random.default_rng(seed)
    step = max(1, CHUNK_DRAWS // max(n_users, width))
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        users = draws.integers(n_users, size=(rows, n_users))
        users += n_users * np.arange(rows)[:, None]
        counts = np.bincount(users.ravel(), minlength=rows * n_users)
        yield counts.reshape(rows, n_users).astype(float)
