"""Values of re-ranked lists by hand: means over a user's lists, those without a positive at 0."""

import numpy as np
import polars as pl
import pytest
import torch

from recalign.errors import UserError
from recalign.evaluation.texts import reranked
from recalign.evaluation.texts.encoded import EncodedTexts
from recalign.evaluation.texts.reranked import RerankedLists, padded, read_padded
from recalign.evaluation.texts.rows import dpo4rec_rows
from recalign.evaluation.texts.scores import TextRecommender
from recalign.lists import Lists
from recalign.metric_columns import RERANKED, RERANKED_NDCG, Metric, primary_of
from recalign.metrics import kars_average_precision, mean_average_precision

LISTS = Lists(
    owners=np.array([0, 0, 1]),
    items=np.array([[2, 5, 7], [1, 2, 3], [4, 5, 6]]),
    positive=np.array([[0, 1, 0], [0, 0, 0], [1, 0, 1]], dtype=bool),
)


def ranked():
    return RerankedLists.of(np.array([10, 20]), LISTS)


def test_a_list_is_ranked_by_scores_of_its_own_items():
    popularity = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7])
    made = ranked().evaluate(ranked().plain(popularity), [1, 2, 10])
    second = 1 / np.log2(3)
    values = {metric.label: column for metric, column in made.values.items()}
    assert values["re-ranked NDCG@2"] == pytest.approx([second / 2, 1 / (1 + second)])
    assert values["re-ranked HR@1"].tolist() == [0.0, 1.0]
    assert values["re-ranked MAP by hits@2"] == pytest.approx([0.25, 1.0])
    assert not any("@10" in label for label in values)  # longer than a list
    whole = ranked().evaluate(ranked().plain(popularity), [3]).values
    assert not any(metric.k == 3 for metric in whole)  # in a whole list all is found
    assert made.recommended.tolist() == [[7, 5, 2], [6, 5, 4]]


def test_lists_without_anything_that_belongs_first_are_refused():
    none = LISTS.rows(np.array([1]))
    with pytest.raises(UserError, match=r"none of 1 lists .* lower splits\.positive_above"):
        RerankedLists.of(np.array([10]), none)


def test_a_text_is_read_with_every_list_of_its_user():
    texts = EncodedTexts(torch.tensor([[1.0], [-1.0]]), torch.tensor([[0], [1]]))

    def read(numbers, vectors):
        return vectors * torch.tensor([1.0, 2, 3])

    own = ranked()
    scorer = TextRecommender(
        torch.arange(len(own.lists)), read_padded(read),
        padded(lambda where: torch.zeros(where.stop - where.start, 1, 3)),
        torch.from_numpy(own.lists.owners),
    )  # fmt: skip
    scores = scorer.given(texts)(slice(0, 2))
    assert scores.tolist() == [[[0.0, 1, 2, 3]], [[0.0, -1, -2, -3]]]
    unread = scorer.given(EncodedTexts(texts.vectors, torch.tensor([[0], [-1]])))
    assert unread(slice(0, 2))[1].tolist() == [[0.0, 0, 0, 0]]


def test_a_few_lists_are_read_at_a_time_however_few_their_scores(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    many = Lists(
        np.arange(40) % 7, np.tile(np.arange(1, 6), (40, 1)), np.tile([True, *[False] * 4], (40, 1))
    )
    own = RerankedLists.of(np.arange(7), many)
    texts = EncodedTexts(torch.rand(21, 4, generator=generator), torch.arange(21).reshape(7, 3))
    matrix, asked = torch.rand(4, 5, generator=generator), list[int]()

    def read(numbers, vectors):
        asked.append(len(vectors))
        return vectors @ matrix * (1 + numbers[:, None, None] % 3)

    alone = padded(lambda where: torch.zeros(where.stop - where.start, 1, 5))
    owners = torch.from_numpy(own.lists.owners)
    scores = TextRecommender(torch.arange(40), read_padded(read), alone, owners).given(texts)
    whole = own.evaluate(scores, [1, 3])
    assert max(asked) == 40
    asked.clear()
    monkeypatch.setattr(reranked, "AT_ONCE", 3 * 5 + 1)  # items, of lists of five
    parts = own.evaluate(scores, [1, 3])
    assert max(asked) == 3
    assert parts.values.keys() == whole.values.keys()
    assert all((parts.values[name] == whole.values[name]).all() for name in whole.values)
    assert (parts.recommended == whole.recommended).all()


def test_kars_precision_is_divided_by_the_hits():
    ranks, n_targets = np.array([[2, 5, 6], [1, 0, 0]]), np.array([3, 1])
    ours = mean_average_precision(ranks, n_targets, 5)
    assert ours == pytest.approx([(1 / 2 + 2 / 5) / 3, 1.0])
    assert kars_average_precision(ranks, n_targets, 5) == pytest.approx([(1 / 2 + 2 / 5) / 2, 1.0])
    assert kars_average_precision(ranks, n_targets, 1).tolist() == [0.0, 1.0]
    assert np.isnan(kars_average_precision(np.zeros((1, 2)), np.array([0]), 3)).all()


def test_a_reranker_is_compared_with_itself_without_texts():
    rows = {row.label: row for row in dpo4rec_rows([], ["frozen"], "SASRec", kind="prm")}
    assert rows["SASRec's order"].base == "PRM, no reasoning"
    assert rows["Base policy, greedy"].base == "PRM, no reasoning"
    assert rows["PRM, no reasoning"].recommender == "prm"


def test_lists_are_compared_by_ndcg_at_5():
    assert primary_of(pl.DataFrame({"lists": [RERANKED]})) == RERANKED_NDCG
    assert Metric("reranked", "NDCG", 5) == RERANKED_NDCG
