"""Rows of the result table on a hand-made catalogue of five items."""

import numpy as np
import pytest
import torch

from recalign.evaluation.candidate_lists import CandidateLists, candidate_lists
from recalign.evaluation.texts import evaluate
from recalign.evaluation.texts.encoded import EncodedTexts
from recalign.evaluation.texts.evaluate import UserTargets, evaluate_row
from recalign.evaluation.texts.rows import READERS, dpo4rec_rows
from recalign.evaluation.texts.scores import (
    Backbone,
    same_for_all,
    shuffled_across_users,
    with_reasonings,
    without_reasoning,
)

SECOND = 1 / np.log2(3)  # gain of a hit at rank 2


def values(scores, targets, cutoffs):
    """What a row is worth to each user, by the label of the metric."""
    return by_label(evaluate_row(scores, targets, cutoffs).values)


def list_metrics(scores, lists, cutoffs):
    return by_label(evaluate.list_metrics(scores, lists, cutoffs, "uniform"))


def by_label(table):
    return {metric.label: column for metric, column in table.items()}


def cases(targets: list[list[int]], seen: list[list[int]], **more) -> UserTargets:
    users = np.arange(10, 10 + len(targets))
    return UserTargets(users, torch.tensor(targets), np.array(seen), **more)


def test_seen_items_do_not_stand_before_the_target():
    popularity = same_for_all(torch.tensor([9.0, 5, 4, 3, 2, 1]))
    table = values(popularity, cases([[3], [3]], [[1, 2], [1, 0]]), [1, 2])
    assert table["NDCG@2"].tolist() == [1.0, pytest.approx(SECOND)]
    assert table["HR@1"].tolist() == [1.0, 0.0]


def test_recommended_items_are_the_best_unseen_ones():
    popularity = same_for_all(torch.tensor([9.0, 5, 4, 3, 2, 1]))
    evaluated = evaluate_row(popularity, cases([[3], [3]], [[1, 2], [1, 0]]), [1], top_k=2)
    assert evaluated.recommended.tolist() == [[3, 4], [2, 3]]


def test_several_samples_are_averaged_per_user():
    # Sample 0 puts the target first, sample 1 second: the user's NDCG is the mean.
    given = torch.tensor([[[0.0, 3, 2, 1], [0, 2, 3, 1]]])
    table = values(lambda where: given[where], cases([[1]], [[0]]), [1])
    assert table["NDCG@1"].tolist() == [0.5]
    assert table["NDCG"].tolist() == [pytest.approx((1 + SECOND) / 2)]


def test_users_are_averaged_over_their_own_samples_not_over_other_users():
    ranks = torch.tensor([[1, 1, 1], [1, 2, 2], [2, 2, 2]])  # of the target, per user and sample
    given = torch.zeros(3, 3, 3)
    given[..., 1] = 1.0
    given[..., 2] = torch.where(ranks == 1, 0.0, 2.0)
    table = values(lambda where: given[where], cases([[1]] * 3, [[0]] * 3), [1])
    assert table["HR@1"].tolist() == [1.0, pytest.approx(1 / 3), 0.0]


def test_chunks_of_users_do_not_change_the_table(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(13, 3, 21, generator=generator)
    many = cases([[1, 2]] * 13, [[3]] * 13)
    whole = evaluate_row(lambda where: given[where], many, [1, 5])
    monkeypatch.setattr(evaluate, "CHUNK_SCORES", 2 * 3 * 21)
    asked: list[int] = []

    def scores(where: slice) -> torch.Tensor:
        asked.append(where.stop - where.start)
        return given[where]

    parts = evaluate_row(scores, many, [1, 5])
    assert max(asked) == 2
    assert parts.values.keys() == whole.values.keys()
    assert all((parts.values[name] == whole.values[name]).all() for name in whole.values)
    assert (parts.recommended == whole.recommended).all()


def test_scores_without_reasoning_are_states_times_items_plus_bias():
    states, items = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    oracle = Backbone(states, items, torch.tensor([0.0, 5, 0]))
    scores = without_reasoning(oracle)(slice(0, 1))
    assert scores.tolist() == [[[0.0, 6.0, 2.0]]]


def test_each_sample_is_read_with_its_own_text_and_an_unreadable_one_falls_back():
    states = torch.tensor([[1.0], [2.0]])
    texts = EncodedTexts(torch.tensor([[10.0], [20.0]]), torch.tensor([[0, 1], [1, -1]]))

    def read(state: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return (state[:, None] + vectors).expand(-1, -1, 3)

    scores = with_reasonings(states, texts, read, same_for_all(torch.tensor([7.0, 7, 7])))
    assert scores(slice(0, 2))[:, :, 1].tolist() == [[11.0, 21.0], [22.0, 7.0]]
    assert scores(slice(1, 2))[:, :, 1].tolist() == [[22.0, 7.0]]


def test_texts_are_read_on_the_device_of_the_states():
    states = torch.zeros(2, 1, device="meta")  # stands for a GPU: nothing is computed on it
    texts = EncodedTexts(torch.tensor([[10.0], [20.0]]), torch.tensor([[0], [1]]))

    def read(state: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        assert vectors.device == state.device == states.device
        return vectors.expand(-1, -1, 3)

    fallback = same_for_all(torch.zeros(3))
    assert with_reasonings(states, texts, read, fallback)(slice(0, 2)).device == states.device


def test_shuffling_gives_each_text_to_exactly_one_other_user():
    for n_users in (2, 3, 50):
        index = torch.arange(n_users * 2).reshape(n_users, 2)
        shuffled = shuffled_across_users(index, seed=3)
        assert sorted(shuffled.flatten().tolist()) == list(range(n_users * 2))
        assert not (shuffled == index).any()
        assert (shuffled[:, 1] == shuffled[:, 0] + 1).all()  # a user's samples stay together
    with pytest.raises(ValueError, match="fewer than two"):
        shuffled_across_users(torch.zeros(1, 2, dtype=torch.int64), seed=0)


def test_users_without_a_target_are_refused():
    with pytest.raises(ValueError, match="1 users have no target"):
        cases([[1], [0]], [[2], [2]])


def test_candidate_lists_hold_the_first_targets_then_the_first_negatives():
    targets = torch.tensor([[4, 5, 6], [7, 0, 0]])
    negatives = torch.tensor([[1, 2, 3, 9], [1, 2, 3, 0]])
    lists = candidate_lists(targets, negatives, list_targets=2, list_length=5)
    assert lists.items.tolist() == [[4, 5, 1, 2, 3], [7, 1, 2, 3, 0]]
    assert lists.n_targets.tolist() == [2, 1]


def test_a_repeated_target_of_a_candidate_list_counts_once():
    targets = torch.tensor([[5, 5, 7, 5, 2], [4, 6, 4, 0, 0]])
    negatives = torch.tensor([[1, 3, 8, 9], [1, 2, 3, 9]])
    lists = candidate_lists(targets, negatives, list_targets=3, list_length=5)
    assert lists.items.tolist() == [[5, 7, 2, 1, 3], [4, 6, 1, 2, 3]]
    assert lists.n_targets.tolist() == [3, 2]
    (first,) = candidate_lists(targets[:1, :3], negatives[:1], 3, 5).items.tolist()
    assert first == [5, 7, 1, 3, 8]


def test_a_target_among_the_negatives_is_refused():
    with pytest.raises(ValueError, match="is a target"):
        candidate_lists(torch.tensor([[4]]), torch.tensor([[2, 4]]), 1, 3)


def test_list_metrics_rank_the_targets_among_the_list_only():
    # Item 5 scores best in the catalogue, but is not on the list [1 (target), 2, 3].
    lists = CandidateLists(torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([1, 1]))
    scores = torch.tensor([[0.0, 2, 3, 1, 0, 9], [0, 2, 1, 5, 0, 9]])
    table = list_metrics(scores, lists, [1, 2, 3])
    assert table["list NDCG"].tolist() == [pytest.approx(SECOND), 1.0]
    assert table["list HR@1"].tolist() == [0.0, 1.0]
    assert "list HR@3" not in table  # every list of three is a hit at 3


def test_lists_with_different_numbers_of_targets_are_each_judged_by_their_own():
    lists = CandidateLists(torch.tensor([[1, 2, 3, 4], [1, 3, 4, 5]]), torch.tensor([2, 1]))
    scores = torch.tensor([[0.0, 4, 1, 3, 2, 0], [0, 4, 9, 3, 2, 5]])
    table = list_metrics(scores, lists, [1])
    # Ranks 1 and 4 of two targets; rank 2 of one (item 2 is not on the second list).
    first = (1 + 1 / np.log2(5)) / (1 + SECOND)
    assert table["list NDCG"] == pytest.approx([first, SECOND])


def test_ties_count_against_the_target_in_lists_too():
    lists = CandidateLists(torch.tensor([[1, 2, 3]]), torch.tensor([1]))
    table = list_metrics(torch.zeros(1, 6), lists, [2])
    assert table["list HR@2"].tolist() == [0.0]


def test_list_columns_stand_beside_the_catalogue_columns():
    lists = CandidateLists(torch.tensor([[3, 4]]), torch.tensor([1]))
    popularity = same_for_all(torch.tensor([9.0, 5, 4, 3, 2, 1]))
    table = values(popularity, cases([[3]], [[0]], lists=lists), [1])
    assert table["HR@1"].tolist() == [0.0]
    assert table["list HR@1"].tolist() == [1.0]


def test_every_policy_row_is_compared_under_its_own_decoding_and_recommender():
    rows = dpo4rec_rows(["lift", "random"], READERS, "SASRec")
    by_label = {row.label: row for row in rows}
    assert len(by_label) == len(rows) == 17
    for row in rows:
        if row.policy == "aligned":
            assert row.base is not None
            base = by_label[row.base]
            assert (base.policy, base.decoding, base.recommender) == (
                "base", row.decoding, row.recommender
            )  # fmt: skip
        elif row.policy != "shuffled":
            first = row.label == "SASRec, no reasoning" or row.recommender == "independent"
            assert row.base == (None if first else "SASRec, no reasoning")
    assert len(dpo4rec_rows([], ["frozen"], "GRU4Rec")) == 7
