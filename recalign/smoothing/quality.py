"""How good a probability of being preferred is, where the true one is known.

A pair's true label is drawn with the true probability p: every measure is its expectation over
that draw, so that none depends on a seed.
"""

import numpy as np

from recalign.metrics import auc

BINS = 15


def expected_auc(estimate: np.ndarray, truth: np.ndarray) -> float:
    """P(estimate of a false negative > estimate of a true one), ties half; NaN without both.

    sum_ij p_i (1 - p_j) [e_i > e_j] / sum_ij p_i (1 - p_j) over all pairs i, j of entries,
    estimate and truth [m]; an entry is also compared with itself, m ties among m^2.
    """
    return float(auc(estimate, truth, 1 - truth))


def calibration_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean |estimate - truth| of bin means over BINS equal bins of [0, 1], estimate, truth [m]."""
    bins = np.minimum((estimate * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, weights=estimate - truth, minlength=BINS)
    return float(np.abs(gap).sum() / len(estimate))


def expected_brier(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean expected (estimate - label)^2 = (estimate - p)^2 + p (1 - p), estimate, truth [m]."""
    return float(((estimate - truth) ** 2 + truth * (1 - truth)).mean())
