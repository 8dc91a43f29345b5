"""eps of every rejected item: pure functions of an oracle's scores, of a truth, or of nothing."""

from typing import Literal

import numpy as np

from recalign.seeding import stream


def pairwise(scores: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """sigma((s_l - s_w) / tau), float64 [n, K]; RosePO (2410.12519), the default reading.

    scores [n, 1 + K]: of the chosen item first; temperature: one for all, or [n].
    """
    tau = _column(temperature)
    return 0.5 * (1 + np.tanh(0.5 * (scores[:, 1:] - scores[:, :1]).astype(np.float64) / tau))


def softmax_share(
    scores: np.ndarray, temperature: np.ndarray | float, listed: np.ndarray | None = None
) -> np.ndarray:
    """exp(s_l / tau) / sum over the candidates of exp(s / tau), float64 [n, K].

    The candidates are the chosen and the rejected of `scores` [n, 1 + K], or, given `listed`
    [n, C], the scores of a whole list that holds them (-inf at padding).
    """
    among = scores if listed is None else listed
    tau = _column(temperature)
    peak = among.max(1, keepdims=True)
    total = np.exp((among - peak).astype(np.float64) / tau).sum(1, keepdims=True)
    return np.exp((scores[:, 1:] - peak).astype(np.float64) / tau) / total


def permuted(eps: np.ndarray, seed: int) -> np.ndarray:
    """The rows of eps [n, K] dealt out anew: as large as before, but of another pair."""
    return eps[stream(seed, "smoothing", "permuted").permutation(len(eps))]


def capped(eps: np.ndarray, cap: float) -> np.ndarray:
    """eps of at most `cap`: from one half on, a pair would ask for its opposite."""
    return np.minimum(eps, cap)


def without_scores(
    estimator: Literal["none", "constant", "truth"],
    shape: tuple[int, int],
    constant: float,
    truth: np.ndarray | None,
) -> np.ndarray:
    """eps [n, K] that needs no oracle: zero, `constant`, or the world's `truth` [n, K]."""
    match estimator:
        case "none":
            return np.zeros(shape)
        case "constant":
            return np.full(shape, constant)
        case "truth":
            if truth is None:
                raise ValueError("there is no truth beside the synthetic world")
            return truth


def _column(temperature: np.ndarray | float) -> np.ndarray:
    """One temperature per row, or one for all, to divide [n, K] by."""
    return np.asarray(temperature, dtype=np.float64).reshape(-1, 1)
