"""Texts that tell something must be read, noise must not, and the naive set-up must be caught."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.config import RecommenderConfig
from recalign.errors import FailedRoundError, NoSignalError
from recalign.recommender.adapters import scale_output
from recalign.recommender.examples import FitExamples, ItemVectors, text_grid
from recalign.recommender.fit import (
    KNOWLEDGE,
    fit_recommender,
    guard_figures,
    split_users,
    train_epochs,
)
from recalign.recommender.model import start_model
from recalign.recommender.required import require_signal
from recalign.recommender.signal import Quality as UserQuality
from recalign.recommender.signal import compare, quality, t_interval

N_USERS, N_ITEMS, N_TASTES, N_TEXTS, N_TARGETS, WIDTH, STATE = 300, 150, 10, 3, 4, 48, 8
CONFIG = RecommenderConfig(held_out=0.2)


class Problem:
    """Users choose by what the sequence model knows plus a liking of one taste among ten.

    An item's text vector shows its taste, a text's vector the taste it speaks of; both are small
    and off centre, as the sums of unit sentence vectors are. `right`: share of texts that speak of
    their user's taste, the others name one at random.
    """

    def __init__(self, right, seed=0):
        rng = np.random.default_rng(seed)
        tastes = rng.normal(size=(N_TASTES, WIDTH))
        item_taste = rng.integers(N_TASTES, size=N_ITEMS + 1)
        self.item_text = self.vectors(rng, tastes, item_taste)
        user_taste = rng.integers(N_TASTES, size=N_USERS)
        guesses = rng.integers(N_TASTES, size=(N_USERS, N_TEXTS))
        told = np.where(rng.random((N_USERS, N_TEXTS)) < right, user_taste[:, None], guesses)
        self.item_matrix = torch.tensor(rng.normal(size=(N_ITEMS + 1, STATE))).float()
        self.item_bias = torch.zeros(N_ITEMS + 1)
        states = rng.normal(size=(N_USERS, STATE)) * 0.5
        utility = states @ self.item_matrix.numpy().T
        utility += 1.5 * (item_taste == user_taste[:, None])
        utility += rng.gumbel(size=utility.shape)
        utility[:, 0] = -np.inf
        taken = np.argsort(-utility, axis=1)[:, : N_TARGETS + 3]
        owners = np.repeat(np.arange(N_USERS), N_TARGETS)
        self.examples = FitExamples(
            users=np.arange(N_USERS),
            texts=torch.from_numpy(self.vectors(rng, tastes, told.ravel())),
            text_rows=torch.arange(N_USERS * N_TEXTS).reshape(N_USERS, N_TEXTS),
            owners=torch.from_numpy(owners),
            states=torch.tensor(states[owners]).float(),
            targets=torch.from_numpy(taken[:, 3:].flatten()),
            first=torch.from_numpy(3 * owners),
            n_seen=torch.full((len(owners),), 3),
            taken=torch.from_numpy(taken[:, :3].flatten()),
        )

    def vectors(self, rng, tastes, which):
        noise = rng.normal(size=(len(which), WIDTH))
        return (0.03 * (tastes[which] + noise) + 0.2).astype(np.float32)

    @property
    def items(self):
        return ItemVectors(self.item_matrix, self.item_bias, self.item_text)

    def fit(self, config=CONFIG):
        return fit_recommender(config, self.examples, self.items)


@pytest.fixture(scope="module")
def telling():
    return Problem(right=0.6)


@pytest.fixture(scope="module")
def fitted(telling):
    return telling.fit()


@pytest.mark.parametrize("adapter", ["gated", "experts"])
def test_texts_that_tell_something_pass_the_guard_and_help(telling, adapter):
    figures = telling.fit(RecommenderConfig(held_out=0.2, adapter=adapter)).figures
    require_signal(figures)
    assert figures["log_prob_real"] > figures["log_prob_no_text"] > figures["log_prob_shuffled"]
    assert figures["ndcg_low"] > 0


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_taken_for_a_signal(seed):
    figures = Problem(right=0.0, seed=seed).fit().figures
    assert figures["log_prob_low"] <= 0 <= figures["log_prob_high"]
    assert figures["log_prob_real"] < figures["log_prob_no_text"] + 0.01
    with pytest.raises(NoSignalError, match=r"shuffled.*guard"):
        require_signal(figures)


def test_the_naive_setup_fails_the_guard(telling, fitted):
    # Raw vectors and an adapter that starts at zero: the reward would be noise, although the
    # texts tell as much and the steps are as many as in the set-up that passes.
    held_out, kept = split_users(CONFIG, telling.examples.users)
    train, test = telling.examples.of_users(kept), telling.examples.of_users(held_out)
    model = start_model(CONFIG, telling.items, train.all_texts())
    with torch.no_grad():
        model.get_buffer("text_mean").zero_()
        model.get_buffer("text_std").fill_(1)
        model.user_map.zero_()
        scale_output(model.adapter, 0)
    model.user_map.requires_grad_(False)
    _, choice = train_epochs(CONFIG, model, train, test, KNOWLEDGE)
    with pytest.raises(NoSignalError):
        require_signal(guard_figures(CONFIG, model, test, choice, KNOWLEDGE))
    require_signal(fitted.figures)


def test_the_same_seed_gives_the_same_weights(telling, fitted):
    again = telling.fit()
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert again.figures == fitted.figures
    other = telling.fit(replace_config(seed=1))
    assert not torch.equal(other.model.user_map, fitted.model.user_map)


def test_the_kept_epoch_is_the_best_on_held_out_users(telling, fitted):
    held_out, _ = split_users(CONFIG, telling.examples.users)
    test = telling.examples.of_users(held_out)
    kept = quality(fitted.model, test, test.grid()).log_prob.mean()
    best = fitted.curve["held_out_log_prob"].max()
    assert kept == pytest.approx(best, abs=1e-6)
    assert best > fitted.curve["held_out_log_prob"][0], "training did not improve on the start"


def test_who_is_held_out_does_not_depend_on_the_order_of_users():
    users = np.arange(50) * 3
    shuffled = np.random.default_rng(0).permutation(users)
    forwards, _ = split_users(CONFIG, users)
    backwards, _ = split_users(CONFIG, shuffled)
    assert len(forwards) == 10
    assert set(users[forwards]) == set(shuffled[backwards])


def test_users_with_texts_by_rule_are_never_held_out():
    users, asked = np.arange(50), np.arange(20) * 2
    held_out, fitted = split_users(CONFIG, users, asked)
    assert len(held_out) == 4  # a fifth of those asked
    assert np.isin(users[held_out], asked).all()
    assert sorted([*held_out, *fitted]) == users.tolist()
    assert set(users[held_out]) == set(
        asked[split_users(CONFIG, asked)[0]]
    )  # as without the others


def test_too_few_users_are_refused():
    with pytest.raises(FailedRoundError, match="at least 10 users"):
        split_users(CONFIG, np.arange(9))
    with pytest.raises(FailedRoundError, match="there are 9"):
        split_users(CONFIG, np.arange(50), np.arange(9))


def test_quality_is_the_softmax_over_unseen_items_and_one_over_log_rank():
    matrix = torch.tensor([[0.0], [3.0], [2.0], [1.0], [0.5]])
    items = ItemVectors(matrix, torch.zeros(5), torch.randn(5, 3).numpy())
    model = start_model(RecommenderConfig(hidden=4), items, torch.randn(20, 3))
    data = FitExamples(
        users=np.array([0]),
        texts=torch.zeros(1, 3),
        text_rows=torch.tensor([[0]]),
        owners=torch.tensor([0, 0]),
        states=torch.ones(2, 1),
        targets=torch.tensor([3, 2]),
        first=torch.tensor([0, 0]),
        n_seen=torch.tensor([1, 0]),
        taken=torch.tensor([1]),
    )
    found = quality(model, data, None)
    first = 1 - np.log(np.exp([2, 1, 0.5]).sum())  # item 1 is seen
    second = 2 - np.log(np.exp([3, 2, 1, 0.5]).sum())
    assert found.log_prob == pytest.approx([(first + second) / 2], abs=1e-6)
    assert found.ndcg == pytest.approx([1 / np.log2(3)], abs=1e-9)  # both are second


def test_the_figures_compare_within_users():
    real = UserQuality(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.5, 0.5, 0.5]))
    shuffled = [
        UserQuality(real.log_prob - 0.5, real.ndcg), UserQuality(real.log_prob - 0.7, real.ndcg)
    ]  # fmt: skip
    figures = compare(real, shuffled, shuffled[0])
    for name in ("log_prob_difference", "log_prob_low", "log_prob_high"):
        assert figures[name] == pytest.approx(0.6)  # users differ, the gain does not
    assert figures["log_prob_no_text"] == pytest.approx(2.0)
    assert figures["signal"] is True


def test_a_sure_but_tiny_gain_is_no_signal():
    real = UserQuality(np.zeros(9), np.zeros(9))
    behind = UserQuality(real.log_prob - 5e-4, real.ndcg)
    assert compare(real, [behind], behind)["signal"] is False


@pytest.mark.parametrize(("n", "quantile"), [(6, 2.571), (11, 2.228), (31, 2.042), (121, 1.980)])
def test_the_interval_is_students(n, quantile):
    values = np.random.default_rng(0).normal(size=n)
    mean, low, high = t_interval(values)
    half = quantile * values.std(ddof=1) / np.sqrt(n)
    assert (low, mean, high) == pytest.approx(
        (values.mean() - half, values.mean(), values.mean() + half), abs=2e-3 * half
    )


def test_the_text_grid_has_one_line_per_user_in_order_of_samples():
    rows, samples = text_grid(
        user_index=np.array([7, 3, 7, 3, 9, 7]),
        samples=np.array([1, 0, -1, 1, 0, 0], dtype=np.int16),
        text_rows=np.array([10, 11, 12, 13, 14, 15]),
        users=np.array([3, 7, 5]),
    )
    assert rows.tolist() == [[11, 13, -1], [12, 15, 10], [-1, -1, -1]]
    assert samples[:2].tolist() == [[0, 1, 0], [-1, 0, 1]]


def test_users_with_fewer_texts_draw_only_their_own(telling):
    rows = telling.examples.text_rows.clone()
    rows[::2, 1:] = -1
    data = replace(telling.examples, text_rows=rows)
    first = data.drawn(torch.zeros(1, dtype=torch.int64), torch.tensor([0.999]))
    assert torch.equal(first[0], data.texts[0])
    assert torch.equal(data.grid()[0], data.texts[[0, 0, 0]])
    assert torch.equal(data.grid()[1], data.texts[[3, 4, 5]])


def test_a_user_without_a_text_is_refused(telling):
    rows = telling.examples.text_rows.clone()
    rows[4] = -1
    with pytest.raises(ValueError, match="every user needs a text"):
        replace(telling.examples, text_rows=rows)


def replace_config(**changes):
    return CONFIG.model_copy(update=changes)
