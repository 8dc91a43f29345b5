"""Bootstrap intervals against known distributions, and what they refuse."""

import numpy as np
import pytest

from recalign.evaluation import intervals
from recalign.evaluation.intervals import TAILS, mean_interval, resampled_means
from recalign.metric_columns import FEWEST_USERS


def bounds(values: np.ndarray, n_resamples: int, seed: int) -> tuple[float, float]:
    _, low, high = mean_interval(values, n_resamples, seed)
    assert low is not None
    assert high is not None
    return low, high


def coverage(draw, truth: float, n_worlds: int = 800) -> float:
    hits = 0
    for world in range(n_worlds):
        low, high = bounds(draw(np.random.default_rng(world)), 400, seed=world)
        hits += low <= truth <= high
    return hits / n_worlds


def test_intervals_of_normal_values_hold_the_true_mean_in_about_95_percent():
    share = coverage(lambda rng: rng.normal(0.3, 2.0, 200), 0.3)
    assert 0.923 < share < 0.97  # 2.5 standard errors (.0077) about the .945 that 200 users give


def test_intervals_of_hit_rates_hold_the_true_rate_in_about_95_percent():
    share = coverage(lambda rng: (rng.random(200) < 0.2).astype(float), 0.2)
    assert 0.915 < share < 0.97  # a discrete mean: the percentile interval is a little short


@pytest.mark.parametrize("n_users", [1, 2, FEWEST_USERS - 1])
def test_of_a_handful_of_users_there_is_a_mean_and_no_interval(n_users):
    values = np.random.default_rng(0).normal(size=n_users)
    assert mean_interval(values, 100, seed=0) == (pytest.approx(values.mean()), None, None)


def test_the_fewest_users_that_have_an_interval_have_one_that_mostly_holds_the_mean():
    assert coverage(lambda rng: rng.normal(0.3, 2.0, FEWEST_USERS), 0.3) > 0.88


def test_width_of_the_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(0, 1, 1000)
    mean, (low, high) = mean_interval(values, 4000, seed=1)[0], bounds(values, 4000, seed=1)
    expected = 2 * 1.96 * values.std() / np.sqrt(len(values))
    assert high - low == pytest.approx(expected, rel=0.06)
    assert mean == pytest.approx(values.mean())


def test_pairing_removes_what_users_have_in_common():
    rng = np.random.default_rng(0)
    user, noise = rng.normal(0, 5, 500), rng.normal(0, 0.1, 500)
    means = resampled_means(np.stack([user, user + 0.05 + noise], 1), 1000, seed=0)
    low, high = np.quantile(means[:, 1] - means[:, 0], TAILS)
    assert low > 0
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(500), rel=0.15)
    lowest, highest = bounds(user + 0.05 + noise, 1000, seed=0)
    assert highest - lowest > 30 * (high - low)


def test_columns_share_their_drawn_users_so_that_a_copy_differs_nowhere():
    values = np.random.default_rng(0).normal(size=(40, 1))
    means = resampled_means(np.hstack([values, values, values + 1]), 300, seed=5)
    assert np.array_equal(means[:, 0], means[:, 1])
    assert np.allclose(means[:, 2] - means[:, 0], 1)
    assert means[:, 0].std() > 0


def test_chunk_size_does_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(0).normal(size=(37, 3))
    whole = resampled_means(values, 101, seed=5)
    monkeypatch.setattr(intervals, "CHUNK_DRAWS", 37 * 7)
    assert np.allclose(whole, resampled_means(values, 101, seed=5), rtol=0, atol=1e-14)
    monkeypatch.setattr(intervals, "CHUNK_DRAWS", 1)
    assert np.allclose(whole, resampled_means(values, 101, seed=5), rtol=0, atol=1e-14)


def test_seed_decides_the_interval():
    values = np.random.default_rng(0).normal(size=50)
    assert mean_interval(values, 200, seed=1) == mean_interval(values, 200, seed=1)
    assert mean_interval(values, 200, seed=1) != mean_interval(values, 200, seed=2)


@pytest.mark.parametrize(
    ("values", "message"), [([0.1, np.nan], "1 of 2 users have a NaN"), ([], "no users")]
)
def test_nan_and_no_users_are_refused(values, message: str):
    with pytest.raises(ValueError, match=message):
        mean_interval(np.array(values), 100, seed=0)
