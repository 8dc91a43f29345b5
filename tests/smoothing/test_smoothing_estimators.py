"""eps of pairs: each estimator against numbers computed by hand, and the folds behind it."""

import math

import numpy as np
import pytest

from recalign.config import SmoothingConfig
from recalign.smoothing.estimators import (
    PairScores,
    pairwise,
    permuted,
    smooth,
    softmax_share,
    warn_of_halves,
)
from recalign.smoothing.folds import folds_of, stops_of

SCORES = np.array([[1.0, 0.0, 3.0], [2.0, -1.0, 2.0]], np.float32)
TAU = np.array([2.0, 0.5])


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def judged(listed: np.ndarray | None = None) -> PairScores:
    return PairScores(SCORES, TAU, listed)


def test_pairwise_is_sigma_of_the_score_gap_over_the_rows_temperature():
    expected = [[sigma(-1 / 2), sigma(2 / 2)], [sigma(-3 / 0.5), 0.5]]
    np.testing.assert_allclose(pairwise(SCORES, TAU), expected)
    np.testing.assert_allclose(pairwise(SCORES, 1.0)[0], [sigma(-1), sigma(2)])


def test_pairwise_and_the_chosens_side_add_up_to_one():
    swapped = SCORES[:, [1, 0]]
    np.testing.assert_allclose(pairwise(SCORES[:, :2], TAU) + pairwise(swapped, TAU), 1)


def test_softmax_shares_one_unit_among_chosen_and_rejected():
    share = softmax_share(SCORES, TAU)
    weights = [math.exp(1 / 2), math.exp(0), math.exp(3 / 2)]
    np.testing.assert_allclose(share[0], [w / sum(weights) for w in weights[1:]])
    np.testing.assert_allclose(softmax_share(SCORES[:, :2], TAU), pairwise(SCORES[:, :2], TAU))


def test_softmax_counts_every_candidate_that_was_shown_and_no_padding():
    listed = np.array([[3.0, 1.0, 0.0, -1.0], [2.0, 2.0, -1.0, -np.inf]], np.float32)
    share = softmax_share(SCORES, TAU, listed)
    total = sum(math.exp(s / 2) for s in (3, 1, 0, -1))
    np.testing.assert_allclose(share[0], [math.exp(0) / total, math.exp(3 / 2) / total])
    np.testing.assert_allclose(share[1], softmax_share(SCORES, TAU)[1])


def test_what_an_oracle_says_is_discounted_and_each_estimator_is_capped():
    truth = np.array([[0.1, 0.7], [0.3, 0.0]])
    expected = {
        "none": np.zeros((2, 2)),
        "constant": np.full((2, 2), 0.2),
        "truth": np.minimum(truth, 0.4),
        "pairwise": np.minimum(0.8 * pairwise(SCORES, TAU), 0.4),
        "softmax": np.minimum(0.8 * softmax_share(SCORES, TAU), 0.4),
    }
    for estimator, eps in expected.items():
        config = SmoothingConfig(estimator=estimator, discount=0.8, constant=0.2, cap=0.4)
        np.testing.assert_allclose(smooth(config, (2, 2), judged(), truth), eps)


def test_the_discount_is_what_one_more_choice_leaves_of_a_beta_distributed_doubt():
    random = np.random.default_rng(0)
    for n, p in ((1, 0.3), (4, 0.6)):  # P(rejected preferred) ~ Beta(n p, n (1 - p)), mean p
        true = random.beta(n * p, n * (1 - p), 400_000)
        taken = random.random(len(true)) > true  # the user took the chosen item
        assert true[taken].mean() == pytest.approx(p * n / (n + 1), abs=0.003)


def test_permuted_deals_the_same_values_to_other_pairs():
    eps = np.random.default_rng(1).random((200, 2))
    dealt = permuted(eps, 3)
    assert sorted(map(tuple, dealt.tolist())) == sorted(map(tuple, eps.tolist()))
    assert (dealt[:, 0] == eps[:, 0]).mean() < 0.05
    assert permuted(eps, 3).tolist() == dealt.tolist() != permuted(eps, 4).tolist()
    config = SmoothingConfig(estimator="permuted", discount=1.0, cap=0.4)
    rows = smooth(config, (2, 2), judged()).tolist()
    assert sorted(rows) == sorted(np.minimum(pairwise(SCORES, TAU), 0.4).tolist())


def test_an_estimator_without_what_it_reads_is_refused():
    for estimator in ("pairwise", "softmax", "permuted", "truth"):
        with pytest.raises(ValueError, match=estimator):
            smooth(SmoothingConfig(estimator=estimator), (2, 2))


def test_folds_are_a_users_own_and_of_about_equal_size():
    folds = folds_of(2000, 5, 0)
    assert folds[:300].tolist() == folds_of(300, 5, 0).tolist()
    counts = np.bincount(folds, minlength=5)
    assert np.abs(counts - 400).max() < 4 * math.sqrt(2000 * 0.2 * 0.8)
    assert folds_of(300, 5, 1).tolist() != folds[:300].tolist()


def test_a_folds_oracle_reads_its_own_users_up_to_the_fit_window_and_others_up_to_validation():
    stops = stops_of(np.array([0, 1, 0]), 0, np.array([3, 4, 5]), np.array([7, 8, 9]))
    assert stops.tolist() == [3, 8, 5]


def test_only_what_an_estimator_reads_is_part_of_its_identity():
    def changed(estimator: str, **change: object) -> bool:
        one = SmoothingConfig(estimator=estimator)
        return one.identity() != one.model_copy(update=change).identity()

    assert changed("permuted", seed=5)
    assert not changed("pairwise", seed=5)  # the folds' seed belongs to fold_oracles
    assert changed("constant", constant=0.2)
    assert not changed("pairwise", constant=0.2)
    assert changed("softmax", calibrated=False)
    assert changed("pairwise", discount=1.0)
    assert not changed("truth", discount=1.0)
    assert not changed("truth", calibrated=False)
    assert changed("truth", cap=0.3)


@pytest.mark.parametrize(("n_halves", "warned"), [(2, False), (3, True), (4, True)])
def test_an_eps_of_one_half_for_most_pairs_is_a_warning(n_halves, warned, caplog):
    warn_of_halves(np.array([[0.5]] * n_halves + [[0.2]] * (4 - n_halves)))
    assert ("eps is about one half" in caplog.text) == warned
