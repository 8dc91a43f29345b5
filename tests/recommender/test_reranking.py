"""PRM reads texts that tell something, not noise; and its lists are scored as they are stored."""

import numpy as np
import polars as pl
import pytest
import torch

from recalign.config import RecommenderConfig
from recalign.errors import UserError
from recalign.lists import Lists
from recalign.recommender.examples import ListExamples
from recalign.recommender.fit import split_users, train_epochs
from recalign.recommender.list_reader import ListReader, OrderedLists
from recalign.recommender.prm import PRM, PRMShape, Reranker
from recalign.recommender.required import require_signal
from recalign.recommender.rerank import (
    BARE,
    attribute_numbers,
    fit_reranker,
    list_quality,
    start_reranker,
)
from recalign.recommender.storage import load_reader, load_recommender, save_recommender
from recalign.schemas import ITEMS

N_USERS, N_ITEMS, N_TASTES, N_LISTS, LENGTH, WIDTH = 300, 80, 4, 6, 10, 16
CONFIG = RecommenderConfig(kind="prm", epochs=12, learning_rate=4e-3, hidden=32, batch_size=64)


def problem(right: float, seed: int = 0) -> tuple[ListExamples, np.ndarray, np.ndarray]:
    """Users like the items of one taste; `right`: share of texts that name it, not any."""
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(N_TASTES, WIDTH))
    item_taste = rng.integers(N_TASTES, size=N_ITEMS + 1)
    user_taste = rng.integers(N_TASTES, size=N_USERS)
    told = np.where(rng.random(N_USERS) < right, user_taste, rng.integers(N_TASTES, size=N_USERS))
    owners = np.repeat(np.arange(N_USERS), N_LISTS)
    items = np.stack([1 + rng.permutation(N_ITEMS)[:LENGTH] for _ in owners])
    positive = item_taste[items] == user_taste[owners][:, None]
    kept = positive.any(1) & ~positive.all(1)

    def vectors(which):
        return (tastes[which] + 0.3 * rng.normal(size=(len(which), WIDTH))).astype(np.float32)

    examples = ListExamples(
        users=np.arange(N_USERS),
        texts=torch.from_numpy(vectors(told)),
        text_rows=torch.arange(N_USERS)[:, None],
        owners=torch.from_numpy(owners[kept]),
        items=torch.from_numpy(items[kept]),
        positive=torch.from_numpy(positive[kept]),
        places=torch.arange(LENGTH).expand(int(kept.sum()), -1),
    )
    item_text = vectors(item_taste)
    item_text[0] = 0
    return examples, item_text, (1 + item_taste[:, None]) * (np.arange(N_ITEMS + 1) > 0)[:, None]


@pytest.fixture(scope="module")
def telling():
    examples, item_text, attributes = problem(right=0.9)
    return fit_reranker(CONFIG, examples, item_text, attributes), examples


def test_texts_that_tell_something_pass_the_guard_and_beat_the_model_without_any(telling):
    figures = telling[0].figures
    require_signal(figures)
    assert figures["ndcg_low"] > 0.05
    assert figures["log_prob_real"] > figures["log_prob_no_text"]
    assert figures["ndcg_real"] > max(figures["ndcg_no_text"], figures["ndcg_shuffled"]) + 0.05


def test_the_model_without_texts_is_measured_on_users_that_did_not_choose_its_epoch(telling):
    examples, item_text, attributes = problem(right=0.9)
    held_out, fitted = split_users(CONFIG, examples.users)
    train, test = examples.of_users(fitted), examples.of_users(held_out)
    bare = start_reranker(CONFIG, LENGTH, item_text, attributes, train.all_texts()).bare
    _, choice = train_epochs(CONFIG, bare, train, test, BARE)

    def measured(even, odd):
        found = []
        for half, best in enumerate((even, odd)):
            best.restore(bare)
            part = test.of_users(np.arange(half, len(held_out), 2))
            found += list_quality(bare, part, None).log_prob.tolist()
        return np.mean(found)

    told = telling[0].figures["log_prob_no_text"]
    assert told == pytest.approx(measured(choice.odd, choice.even))
    assert told < measured(choice.everyone, choice.everyone) - 1e-6


def test_noise_is_not_taken_for_a_signal():
    fitted = fit_reranker(CONFIG.model_copy(update={"epochs": 6}), *problem(right=0.0))
    assert not fitted.figures["signal"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    small = CONFIG.model_copy(update={"epochs": 1})
    given = problem(right=0.9)
    weights = [
        fit_reranker(config, *given).model.state_dict()
        for config in (small, small, small.model_copy(update={"seed": 1}))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["reading.items.weight"], weights[2]["reading.items.weight"])


def test_a_list_is_scored_the_same_in_any_order_and_beside_any_other(telling):
    model, examples = telling[0].model, telling[1]
    items, places = examples.items[:5], examples.places[:5]
    texts = examples.texts[examples.owners[:5]][:, None].repeat(1, 3, 1)
    whole = model.scores(items, places, texts)
    order = torch.randperm(LENGTH)
    turned = model.scores(items[:, order], places[:, order], texts)
    assert torch.allclose(turned, whole[:, :, order], atol=1e-5)
    assert torch.allclose(model.scores(items[2:3], places[2:3], texts[2:3]), whole[2:3], atol=1e-5)
    assert torch.allclose(whole[:, 0], whole[:, 2])
    assert not torch.allclose(model.scores(items, places.flip(1), texts), whole, atol=1e-3)


def test_a_reranker_is_kept_whole_and_is_not_taken_for_one_of_catalogues(telling, tmp_path):
    fitted, examples = telling
    save_recommender(tmp_path, fitted.model, fitted.figures)
    loaded, figures = load_reader(tmp_path)
    assert isinstance(loaded, Reranker)
    assert figures == fitted.figures
    items, places = examples.items[:4], examples.places[:4]
    for texts in (examples.texts[:4][:, None], None):
        expected = fitted.model.scores(items, places, texts)
        assert torch.equal(loaded.scores(items, places, texts), expected)
    with pytest.raises(UserError, match="PRM, which re-ranks lists"):
        load_recommender(tmp_path)


class Given(PRM):
    """Gives the items of a list the scores of a table, whatever the text."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__(PRMShape(2, 4, 1, 3, 5, 0, 1, ""), 0.0)
        self.given = scores

    def forward(self, items, places, texts):
        n_texts = 1 if texts is None else texts.shape[1]
        return self.given[items][:, None].expand(-1, n_texts, -1)


def test_quality_is_the_likelihood_of_what_is_positive_and_its_ndcg():
    model = Given(torch.tensor([0.0, 3.0, 2.0, 1.0, 0.5, 0.0]))
    data = ListExamples(
        users=np.array([4, 7]), texts=torch.zeros(1, 2), text_rows=torch.zeros(2, 1).long(),
        owners=torch.tensor([0, 0, 1]),
        items=torch.tensor([[1, 2, 3], [1, 2, 3], [3, 4, 5]]),
        positive=torch.tensor([[True, False, False], [False, False, True], [True, True, False]]),
        places=torch.zeros(3, 3).long(),
    )  # fmt: skip
    for texts in (None, data.grid()):
        found = list_quality(model, data, texts)

        def likelihood(*signed):
            return -np.sum(np.log1p(np.exp(-np.array(signed))))

        first = (likelihood(3.0, -2.0, -1.0) + likelihood(-3.0, -2.0, 1.0)) / 2
        assert found.log_prob == pytest.approx([first, likelihood(1.0, 0.5, 0.0)])
        assert found.ndcg == pytest.approx([(1 + 1 / 2) / 2, 1.0])


def test_lists_come_in_the_order_of_the_sequence_model_and_texts_change_the_scores():
    lists = Lists(np.array([0, 1]), np.array([[1, 2, 3], [1, 2, 3]]), np.ones((2, 3), bool))
    matrix = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    states, bias = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.0, 0.0, 0.0, -9.0])
    ordered = OrderedLists.by(lists, states, matrix, bias)
    assert ordered.scores.tolist() == [[1.0, 2.0, -6.0], [-1.0, -2.0, -12.0]]
    assert ordered.places.tolist() == [[1, 0, 2], [0, 1, 2]]
    torch.manual_seed(0)
    reader = ListReader(Reranker(PRMShape(2, 8, 1, 3, 3, 0, 1, "gated"), 0.0).eval(), ordered)
    assert reader.alone(slice(0, 2)).shape == (2, 1, 3)
    told = reader.read(slice(0, 2), torch.randn(2, 4, 2))
    assert told.shape == (2, 4, 3)
    assert len({round(float(x), 4) for x in told[0, :, 0]}) == 4


def test_attributes_are_numbered_by_name_and_value():
    rows = [
        (1, "a", "A", "", [{"name": "genre", "value": "x"}, {"name": "era", "value": "x"}]),
        (2, "b", "B", "", []),
        (3, "c", "C", "", [{"name": "genre", "value": "x"}]),
    ]
    items = pl.DataFrame(rows, schema=ITEMS, orient="row")
    assert attribute_numbers(items).tolist() == [[0, 0], [1, 2], [0, 0], [2, 0]]
    bare = attribute_numbers(items.filter(item_index=2).with_columns(item_index=1))
    assert bare.shape[0] == 2
    assert not bare.any()
