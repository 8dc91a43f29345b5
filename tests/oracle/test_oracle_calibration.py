"""The temperature is found again where it is known; errors equal hand-computed ones."""

from math import exp

import numpy as np
import pytest

from recalign.oracle.calibration import (
    LIMITS,
    brier_score,
    calibrate,
    expected_calibration_error,
    fit_temperature,
)


def overconfident(n: int, tau: float) -> np.ndarray:
    """Differences s_w - s_l of pairs whose winner is drawn with probability sigma(d / tau)."""
    draws = np.random.default_rng(0)
    ahead = draws.normal(0, 3, n)
    wins = draws.random(n) < 1 / (1 + np.exp(-ahead / tau))
    return np.where(wins, ahead, -ahead)


def test_the_true_temperature_is_found_again() -> None:
    for tau in (0.5, 1.0, 2.5):
        assert fit_temperature(overconfident(40_000, tau)) == pytest.approx(tau, rel=0.05)


def test_calibration_removes_the_error_out_of_sample() -> None:
    differences = overconfident(40_000, 2.5)
    half = np.arange(len(differences)) % 2 == 0
    temperature, facts = calibrate(differences, half)
    assert temperature == pytest.approx(2.5, rel=0.05)
    assert facts["ece_before"] > 0.1
    assert facts["ece_after"] < 0.02
    assert facts["brier_after"] < facts["brier_before"]
    assert facts["pairs"] == 40_000


def test_temperatures_stay_within_limits_when_pairs_separate_or_contradict() -> None:
    assert fit_temperature(np.array([1.0, 2.0])) == pytest.approx(LIMITS[0], rel=1e-6)
    assert fit_temperature(np.array([-1.0, -2.0])) == pytest.approx(LIMITS[1], rel=1e-6)


def test_errors_equal_hand_computed_numbers() -> None:
    sure, unsure = 1 / (1 + exp(-3.0)), 1 / (1 + exp(-0.1))
    # Two sure pairs, one of them wrong; one unsure pair, right. One bin each.
    differences = np.array([6.0, -6.0, 0.2])
    expected = (2 * abs(sure - 0.5) + abs(unsure - 1)) / 3
    assert expected_calibration_error(differences, 2.0) == pytest.approx(expected)
    brier = ((1 - sure) ** 2 + sure**2 + (1 - unsure) ** 2) / 3
    assert brier_score(differences, 2.0) == pytest.approx(brier)


def test_one_half_alone_is_not_calibrated() -> None:
    assert calibrate(np.array([1.0, -1.0]), np.array([True, True])) == (1.0, {"pairs": 2.0})
