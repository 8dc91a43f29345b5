"""Intervals over users and seeds, simulated: how often they hold the truth, and what they find."""

import numpy as np
import pytest

from recalign.errors import UserError
from recalign.evaluation.intervals import resampled_means
from recalign.evaluation.seed_intervals import Estimate, estimate, holm, user_covariance

N_USERS = 400


def worlds(n_seeds, seed_sd, n_worlds=1500, own=0.5):
    """Differences [S, U] of many experiments whose true mean is 0.

    A user's difference is made of what holds in every seed and, by the share `own`, of what is
    the seed's alone; users' part of the standard error of the mean is 1 / sqrt(N_USERS) always.
    """
    draws = np.random.default_rng(n_seeds)
    for _ in range(n_worlds):
        common = draws.normal(0, (1 - own) ** 0.5, N_USERS)
        alone = draws.normal(0, (own * n_seeds) ** 0.5, (n_seeds, N_USERS))
        yield common + alone + draws.normal(0, seed_sd, (n_seeds, 1))


def measured(values) -> Estimate:
    """With the exact covariance of means over users, to which the bootstrap's converges."""
    covariance = np.atleast_2d(np.cov(values)) / values.shape[1]
    return estimate(values.mean(1), covariance, values.shape[1])


def coverage(n_seeds, seed_sd, **more):
    """Share of experiments whose interval holds 0: with seeds and users, and with users alone."""
    held, held_by_users = [], []
    for values in worlds(n_seeds, seed_sd, **more):
        low, high = measured(values).interval
        held.append(low <= 0 <= high)
        per_user = values.mean(0)
        error = per_user.std(ddof=1) / N_USERS**0.5
        held_by_users.append(abs(per_user.mean()) <= 1.96 * error)
    return np.mean(held), np.mean(held_by_users)


# How far the seed alone moves the figure, in standard errors that users leave to the mean; 2.4
# times sqrt(S) of it is what changing the alignment seed did to HR@1 on the embedded world.
LARGE = 2.4 / N_USERS**0.5


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 10])
def test_intervals_hold_the_truth_in_95_percent_where_users_alone_give_55(n_seeds):
    share, by_users = coverage(n_seeds, LARGE * n_seeds**0.5)
    assert 0.94 <= share <= 0.98
    assert 0.50 < by_users < 0.60


@pytest.mark.parametrize("seed_sd", [0.0, 0.5 / N_USERS**0.5, 1.0 / N_USERS**0.5])
def test_intervals_hold_it_where_seeds_matter_little_or_not(seed_sd):
    share, _ = coverage(5, seed_sd)
    assert 0.95 <= share <= 0.99  # wide where seeds do not vary at all


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_of_38_comparisons_without_effect_one_stands_by_holm_in_5_percent_of_pages(n_seeds):
    p_values = [measured(one).p for one in worlds(n_seeds, LARGE * n_seeds**0.5, 38 * 200)]
    pages = np.reshape(p_values, (200, 38)).tolist()
    assert np.mean([min(holm(page)) < 0.05 for page in pages]) <= 0.075


@pytest.mark.parametrize("n_seeds", [1, 3, 5])
def test_an_effect_of_the_detectable_size_is_found_in_80_percent(n_seeds):
    seed_sd = LARGE * n_seeds**0.5 if n_seeds > 1 else 0.0
    known = [measured(values) for values in worlds(n_seeds, seed_sd, 600)]
    halves = np.array([one.interval[1] - one.mean for one in known])
    means = np.array([one.mean for one in known])
    found = [np.mean(means + one.detectable > halves) for one in known[:200]]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_the_bootstrap_over_users_gives_the_covariance_of_seeds_on_the_same_users():
    draws = np.random.default_rng(0)
    values = draws.normal(size=(3, 500)) + 2 * draws.normal(size=500)
    resampled = user_covariance(resampled_means(values.T, 4000, seed=1).T)
    exact = np.cov(values) / 500
    assert np.allclose(resampled, exact, rtol=0.1)


def test_one_seed_is_an_interval_over_users_alone():
    values = np.random.default_rng(0).normal(0.2, 1, (1, 900))
    one = measured(values)
    half = 1.9626 / 30 * values.std(ddof=1)  # t of 899 degrees of freedom, sqrt(900) users
    assert one.interval == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-3)
    assert one.per_seed == (values.mean(),)


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_one_user_is_refused_in_words(n_seeds):
    with pytest.raises(UserError, match="tested on one user"):
        estimate([0.1, 0.2][:n_seeds], np.zeros((n_seeds, n_seeds)), 1)
    assert np.isfinite(estimate([0.1, 0.2], np.full((2, 2), 0.01), 2).interval).all()


def test_where_nothing_differs_there_is_no_effect_and_no_error():
    same = estimate([0.0, 0.0], np.zeros((2, 2)), 50)
    assert (same.mean, same.interval, same.p, same.detectable) == (0, (0, 0), 1, 0)


def test_users_who_cancel_out_between_seeds_leave_no_negative_variance():
    cancelling = np.array([[0.1, -0.1], [-0.1, 0.1 - 1.4e-17]])
    assert cancelling.sum() < 0
    found = estimate([0.1, 0.3], cancelling, 50)
    assert np.isfinite(found.interval).all()
    assert 0 < found.p < 1


def test_a_known_t_interval_is_met_when_users_leave_nothing_open():
    exact = estimate([1.0, 2.0, 3.0], np.zeros((3, 3)), 10**6)
    # mean 2, standard error 1 / sqrt(3), t of 2 degrees of freedom 4.3027
    assert exact.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)
    assert exact.p == pytest.approx(0.0742, abs=1e-4)  # t = 2 sqrt(3), 2 degrees of freedom


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
