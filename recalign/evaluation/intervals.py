"""95 % intervals by the bootstrap over users: paired, for many columns at once, and pooled."""

from collections.abc import Iterator, Sequence

import numpy as np

from recalign.seeding import derive_seed

CHUNK_DRAWS = 1 << 21  # drawn users held at a time: 16 MB of indices, and as much of counts
TAILS = (0.025, 0.975)


def mean_interval(values: np.ndarray, n_resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean of `values` [U] over users, and its 95 % percentile interval (Efron 1979)."""
    means = pooled_means([values[:, None]], n_resamples, seed)[:, 0]
    low, high = np.quantile(means, TAILS)
    return float(values.mean()), float(low), float(high)


def pooled_means(runs: Sequence[np.ndarray], n_resamples: int, seed: int) -> np.ndarray:
    """Resampled means, float64 [n_resamples, M], averaged over `runs` of [U_r, M] values.

    All M columns of a run see the same drawn users, so differences of columns are paired. Every
    run resamples its own users: it is meant for runs whose users are independent, such as several
    synthetic worlds. Runs that share their users, such as training seeds on one data set, are
    averaged per user first and then given as one array; else the interval is too narrow. Neither
    way covers training seeds that were not run. ValueError: no run.
    """
    if not runs:
        raise ValueError("there is no run to average over")
    means = np.zeros((n_resamples, runs[0].shape[1]))
    for number, values in enumerate(runs):
        means += resampled_means(values, n_resamples, derive_seed(seed, "bootstrap", number))
    return means / len(runs)


def resampled_means(values: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Means over users drawn with replacement: float64 [n_resamples, M] of `values` [U, M].

    How often each user is drawn is counted once and multiplied with all columns, so that a
    hundred columns cost little more than one; memory is bounded whatever U. ValueError: no user,
    or a NaN (a user without targets has no metric: leave the user out, and say so).
    """
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values {values.shape} hold no users to resample")
    if n_missing := int(np.isnan(values).any(1).sum()):
        raise ValueError(f"{n_missing} of {len(values)} users have a NaN: leave them out first")
    return np.concatenate(list(_drawn_sums(values, n_resamples, seed))) / len(values)


def _drawn_sums(values: np.ndarray, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums over the drawn users, [rows, M], one chunk of resamples after the other."""
    for counts in drawn_counts(len(values), n_resamples, seed):
        yield counts @ values


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
