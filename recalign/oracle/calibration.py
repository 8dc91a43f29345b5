"""How far the oracle's scores can be read as preferences: one temperature, and the error left."""

import numpy as np

BINS = 15
LIMITS = (0.05, 20.0)  # temperatures outside mean that the scores separate all pairs, or none


def fit_temperature(differences: np.ndarray) -> float:
    """The tau that maximises sum log sigma(d / tau) over score differences d = s_w - s_l [n].

    The log-likelihood is concave in 1/tau: bisection on its slope, mean d sigma(-d / tau).
    """
    low, high = 1 / LIMITS[1], 1 / LIMITS[0]
    for _ in range(60):
        middle = (low + high) / 2
        slope = float((differences * probability(-differences, 1 / middle)).mean())
        low, high = (middle, high) if slope > 0 else (low, middle)
    return 1 / middle


def probability(differences: np.ndarray, temperature: float) -> np.ndarray:
    """sigma(d / tau): the probability that the item ahead by d is the one preferred."""
    return 0.5 * (1 + np.tanh(0.5 * differences / temperature))


def expected_calibration_error(differences: np.ndarray, temperature: float) -> float:
    """Mean gap between confidence and accuracy over BINS equal-width bins of confidence.

    Confidence is sigma(|d| / tau), 0.5 to 1; a pair is right where d > 0 (a tie is half right).
    """
    confidence = probability(np.abs(differences), temperature)
    right = 0.5 * (1 + np.sign(differences))
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gap).sum() / len(differences))


def brier_score(differences: np.ndarray, temperature: float) -> float:
    """Mean of (1 - sigma(d / tau))**2: squared error of the probability given to what was taken."""
    return float(((1 - probability(differences, temperature)) ** 2).mean())


def calibrate(differences: np.ndarray, half: np.ndarray) -> tuple[float, dict[str, float]]:
    """Temperature from all differences [n], and the errors without and with one.

    The errors "after" are out of sample: the pairs where `half` [n] is true are measured with the
    temperature of the others, and the other way round.
    """
    if half.all() or not half.any():
        return 1.0, {"pairs": float(len(differences))}
    others, own = fit_temperature(differences[~half]), fit_temperature(differences[half])
    scaled = differences / np.where(half, others, own)
    return fit_temperature(differences), {
        "pairs": float(len(differences)),
        "accuracy": float((differences > 0).mean()),
        "ece_before": expected_calibration_error(differences, 1.0),
        "ece_after": expected_calibration_error(scaled, 1.0),
        "brier_before": brier_score(differences, 1.0),
        "brier_after": brier_score(scaled, 1.0),
    }
