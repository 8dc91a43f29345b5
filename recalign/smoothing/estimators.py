"""eps of every rejected item: pure functions of an oracle's scores, of a truth, or of nothing."""

import logging
from dataclasses import dataclass

import numpy as np

from recalign.config import SmoothingConfig
from recalign.seeding import stream

logger = logging.getLogger(__name__)

HALF = 0.01  # around an eps of one half: a fiftieth of an unsmoothed pair's gradient, or less


@dataclass(frozen=True)
class PairScores:
    """What an oracle makes of n pairs with K rejected each."""

    scores: np.ndarray
    """float32 [n, 1 + K], of the chosen item first."""
    temperature: np.ndarray
    """By which scores are divided before they are read as preferences, float64 [n]."""
    listed: np.ndarray | None = None
    """Scores of the candidates shown in the prompt [n, C], -inf at padding; None: not shown."""


def smooth(
    config: SmoothingConfig,
    shape: tuple[int, int],
    judged: PairScores | None = None,
    truth: np.ndarray | None = None,
) -> np.ndarray:
    """eps of n pairs with K rejected each, float64 `shape` = [n, K], at most config.cap.

    `judged` is read by pairwise, softmax and permuted, `truth` [n, K] by truth.

    An oracle of the past says p = P(rejected preferred) without knowing which item was taken. Let
    the user's true probability be Beta-distributed around p, as if the oracle had seen n choices
    between the two: after one more, of the chosen, its mean is p n / (n + 1). So what an oracle
    says is multiplied by config.discount; calibration alone, being right about both items alike,
    leaves eps too high.
    """
    match config.estimator, judged, truth:
        case "none", _, _:
            eps = np.zeros(shape)
        case "constant", _, _:
            eps = np.full(shape, config.constant)
        case "truth", _, np.ndarray():
            eps = truth
        case "pairwise", PairScores(), _:
            eps = config.discount * pairwise(judged.scores, judged.temperature)
        case "permuted", PairScores(), _:
            eps = pairwise(judged.scores, judged.temperature)
            eps = permuted(config.discount * eps, config.seed)
        case "softmax", PairScores(), _:
            eps = softmax_share(judged.scores, judged.temperature, judged.listed)
            eps = config.discount * eps
        case _:
            raise ValueError(f"{config.estimator} was not given what it reads")
    return np.minimum(eps, config.cap)


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
    """The rows of eps [n, K] in random order: the same values, but of other pairs."""
    return eps[stream(seed, "smoothing", "permuted").permutation(len(eps))]


def _column(temperature: np.ndarray | float) -> np.ndarray:
    """One temperature per row, or one for all, to divide [n, K] by."""
    return np.asarray(temperature, dtype=np.float64).reshape(-1, 1)


def warn_of_halves(eps: np.ndarray) -> None:
    """Warn where most of eps [n, K] is about one half, where RosePO's gradient starts at zero."""
    share = float((np.abs(eps - 0.5) <= HALF).mean())
    if share > 0.5:
        logger.warning(
            "smoothing: eps is about one half for %.0f %% of the rejected items, which teach the "
            "LLM next to nothing: look at the oracle's calibration",
            100 * share,
        )
