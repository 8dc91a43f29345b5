"""Ranks, bias, hallucination and answers, each number worked out by hand."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from recalign.evaluation.next_items import measures
from recalign.evaluation.next_items import outcomes as judge_module
from recalign.evaluation.next_items.fixed_lists import DRAWN, fixed_lists
from recalign.evaluation.next_items.measures import nearest_items
from recalign.evaluation.next_items.outcomes import Response, by_item, by_states, judge
from recalign.evaluation.per_user import means_over_users, per_user_table, user_means
from recalign.evaluation.recommended import spread
from recalign.metric_columns import CATALOGUE, Metric
from tests.evaluation import next_item_world as world

CASES = world.all_cases()  # users 0 0 1 1 2, targets 3 4 5 1 6
POPULARITY = np.array([0, 9, 8, 4, 2, 1, 1, 0])
BEST_FIRST = [  # one row per case: how items 1..7 score
    [7.0, 6, 5, 4, 3, 2, 1],  # 1 2 seen: 3 first
    [7.0, 6, 5, 1, 4, 3, 2],  # 1 2 3 seen: 4 is the last of 4 5 6 7
    [0.0, 9, 2, 3, 3, 1, 0],  # 2 seen: 4 ties with the target 5
    [5.0, 9, 4, 3, 9, 2, 1],  # 2 5 seen: 1 first
    [0.0, 1, 2, 3, 4, 9, 8],  # 7 seen; 6, seen too, is the target: first
]


def judged(given, work: Path | None = None, **options):
    lists = {k: fixed_lists(CASES, world.candidates(), k, 4) for k in DRAWN}
    if work:
        return judge(given, CASES, lists, 2, work, **options)
    with TemporaryDirectory() as folder:
        return judge(given, CASES, lists, 2, Path(folder), **options)


def by_label(table):
    return {metric.label: values for metric, values in table.items()}


def ranking_measures(*arguments):
    return by_label(measures.ranking_measures(*arguments))


def bias_measures(*arguments):
    return by_label(measures.bias_measures(*arguments))


def hallucination_measures(*arguments):
    return by_label(measures.hallucination_measures(*arguments))


def answer_measures(*arguments):
    return by_label(measures.answer_measures(*arguments))


def test_ranks_leave_out_what_was_seen_and_count_ties_against_the_target():
    one = judged(world.by_table(BEST_FIRST))
    assert one.ranks["catalogue"].tolist() == [1, 4, 2, 1, 1]
    assert one.firsts["catalogue"].tolist() == [3, 5, 4, 1, 6]
    assert one.recommended[[0, 1, 3, 4]].tolist() == [[3, 4], [5, 6], [1, 3], [6, 5]]
    assert set(one.recommended[2]) == {4, 5}
    # Lists 3 5 6 7 | 4 5 6 7 | 5 3 4 6 | 1 7 3 4 | 6 1
    assert one.ranks["uniform"].tolist() == [1, 4, 2, 1, 1]
    assert one.firsts["uniform"].tolist() == [3, 5, 4, 1, 6]


def test_rankings_become_metrics():
    table = ranking_measures(judged(world.by_table(BEST_FIRST)), 4)
    assert table["HR@1"].tolist() == [1, 0, 0, 1, 1]
    assert table["NDCG@5"] == pytest.approx([1, 1 / np.log2(5), 1 / np.log2(3), 1, 1])
    assert table["MRR"].tolist() == [1, 0.25, 0.5, 1, 1]
    assert table["list MRR"].tolist() == [1, 0.25, 0.5, 1, 1]
    assert "HR@5" in table
    assert "list HR@1" in table
    assert "list HR@5" not in table  # every list of four is a hit at five


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.0)])
def test_perfect_inverse_and_constant_recommenders_reach_the_bounds(sign, expected):
    perfect = np.zeros((5, 7))
    perfect[np.arange(5), CASES.targets - 1] = sign
    table = ranking_measures(judged(world.by_table(perfect.tolist())), 4)
    for start in ("", "list ", "popular list "):
        assert table[f"{start}HR@1"].tolist() == [expected] * 5
    # Constant scores put every target last: 5 4 6 5 6 items may be shown, lists hold 4 4 4 4 2.
    if sign <= 0:
        assert table["MRR"] == pytest.approx([1 / n for n in (5, 4, 6, 5, 6)])
        assert table["list MRR"] == pytest.approx([1 / n for n in (4, 4, 4, 4, 2)])


def in_parts(*parts):
    return [np.array(part) for part in parts]


@pytest.mark.parametrize(
    "asked", [[[0], [1], [2], [3], [4]], [[0, 1], [2, 3], [4]], [[3, 0], [4, 2, 1]]]
)
def test_how_cases_are_asked_for_together_changes_nothing(asked, monkeypatch):
    whole = judged(world.by_table(BEST_FIRST))
    told: list[tuple[int, int]] = []
    parts = judged(
        world.by_table(BEST_FIRST),
        parts=in_parts(*asked),
        progress=lambda d, t, note="": told.append((d, t)),
    )
    assert told[-1] == (5, 5)
    assert len(told) == len(asked)
    monkeypatch.setattr(judge_module, "CHUNK_SCORES", 16)  # two rows of eight
    for one in (parts, judged(world.by_table(BEST_FIRST))):
        assert {k: v.tolist() for k, v in one.ranks.items()} == {
            k: v.tolist() for k, v in whole.ranks.items()
        }
        assert one.recommended.tolist() == whole.recommended.tolist()


def test_a_killed_judgement_goes_on_behind_its_last_cases(tmp_path):
    by_table = world.by_table(BEST_FIRST)
    asked: list[list[int]] = []

    def given(where: np.ndarray) -> Response:
        asked.append(where.tolist())
        if len(asked) == 3:
            raise KeyboardInterrupt
        texts = [f"a{n}" for n in where]
        return replace(by_table(where), answers={CATALOGUE: texts, "uniform": texts})

    parts = in_parts([3, 4], [0, 2], [1])
    with pytest.raises(KeyboardInterrupt):
        judged(given, tmp_path, parts=parts)
    one = judged(given, tmp_path, parts=parts)
    assert asked == [[3, 4], [0, 2], [1], [1]]
    whole = judged(by_table)
    for found, expected in ((one.ranks, whole.ranks), (one.firsts, whole.firsts)):
        assert {k: v.tolist() for k, v in found.items()} == {
            k: v.tolist() for k, v in expected.items()
        }
    assert one.recommended.tolist() == whole.recommended.tolist()
    assert one.answers == {key: [f"a{n}" for n in range(5)] for key in (CATALOGUE, "uniform")}


def test_what_was_judged_counts_however_many_cases_are_asked_for_together_after_a_kill(tmp_path):
    by_table = world.by_table(BEST_FIRST)
    asked: list[list[int]] = []

    def given(where: np.ndarray) -> Response:
        asked.append(where.tolist())
        if len(asked) == 2:
            raise MemoryError
        return by_table(where)

    with pytest.raises(MemoryError):
        judged(given, tmp_path, parts=in_parts([3, 4], [0, 2, 1]))
    one = judged(given, tmp_path, parts=in_parts([4, 3], [0], [2], [1]))
    assert asked == [[3, 4], [0, 2, 1], [0], [2], [1]]
    whole = judged(by_table)
    for found, expected in ((one.ranks, whole.ranks), (one.firsts, whole.firsts)):
        assert {k: v.tolist() for k, v in found.items()} == {
            k: v.tolist() for k, v in expected.items()
        }
    assert one.recommended.tolist() == whole.recommended.tolist()
    judged(given, tmp_path, parts=in_parts([0, 1, 2, 3, 4]))
    assert len(asked) == 5


def test_a_beam_that_misses_the_target_is_a_miss_and_lists_are_scored_apart():
    best = np.array([[3, 5], [6, 5], [4, 5], [3, 1], [6, 0]])
    lists = {kind: fixed_lists(CASES, world.candidates(), kind, 4) for kind in DRAWN}

    def given(where: np.ndarray) -> Response:
        return Response(
            best=best[where], lists={k: -items[where] + 0.0 for k, items in lists.items()}
        )

    one = judged(given)
    assert one.ranks["catalogue"].tolist() == [1, 0, 2, 2, 1]
    assert one.firsts["catalogue"].tolist() == [3, 6, 4, 3, 6]
    table = ranking_measures(one, 4)
    assert table["HR@10"].tolist() == [1, 0, 1, 1, 1]
    assert table["MRR"].tolist() == [1, 0, 0.5, 0.5, 1]
    # Low item numbers score best: 3 of 3567, 4 of 4567, 5 of 5346, 1 of 1734, 6 of 61.
    assert one.ranks["uniform"].tolist() == [1, 1, 3, 1, 2]
    assert one.firsts["uniform"].tolist() == [3, 4, 3, 1, 1]


def test_a_nan_score_is_an_error_in_lists_as_in_the_catalogue():
    lists = {"uniform": np.full((5, 4), np.nan)}
    with pytest.raises(ValueError, match="the model diverged"):
        judged(lambda where: Response(lists={k: s[where] for k, s in lists.items()}))


def test_states_and_items_are_scored_as_such():
    import torch

    states, matrix = torch.eye(2), torch.tensor([[0.0, 0], [1, 2], [3, 4]])
    scores = by_states(states, matrix, torch.tensor([0.0, 10, 20]))(np.array([1])).scores
    assert scores is not None
    assert scores.tolist() == [[0.0, 12.0, 24.0]]
    scores = by_item(torch.tensor([0.0, 1, 2]))(np.array([3, 4])).scores
    assert scores is not None
    assert scores.tolist() == [[0, 1, 2]] * 2


def test_popularity_of_what_is_recommended():
    table = bias_measures(judged(world.by_table(BEST_FIRST)), CASES, POPULARITY)
    logs = np.log([1, 10, 9, 5, 3, 2, 2, 1])
    # First case: 3 and 4 recommended, 3 true.
    assert table["popularity lift"][0] == pytest.approx((logs[3] + logs[4]) / 2 - logs[3])
    assert table["average popularity"].tolist() == [3, 1, 1.5, 6.5, 1]
    # The head is the most popular fifth of seven items, rounded up: 1 and 2.
    assert table["long-tail share"].tolist() == [1, 1, 1, 0.5, 1]
    # In lists, of the first place alone: right, 5 for 4, 4 for 5, right, right.
    expected = [0, logs[5] - logs[4], logs[4] - logs[5], 0, 0]
    assert table["list popularity lift"] == pytest.approx(expected)


def test_hallucination_is_counted_among_wrong_first_places_and_among_all():
    scores = [
        [0.0, 0, 5, 6, 0, 0, 0],  # 4 for 3
        [0.0, 0, 0, 1, 5, 0, 0],  # 5 for 4
        [8.0, 9, 0, 0, 1, 0, 0],  # 1 for 5: 2 was seen
        [1.0, 9, 2, 3, 9, 2, 0],  # 4 for 1: 2 and 5 were seen
        [1.0, 9, 2, 3, 8, 2, 99],  # 2 for 6: 7 was seen
    ]
    one = judged(world.by_table(scores))
    assert one.firsts["catalogue"].tolist() == [4, 5, 1, 4, 2]
    neighbours = np.array([[4, 7], [6, 7], [2, 3], [4, 2], [5, 7]])
    table = hallucination_measures(one, CASES, neighbours, POPULARITY)
    assert table["semantic hallucination"].tolist() == [1, 0, 0, 1, 0]
    assert table["popular hallucination"].tolist() == [0, 0, 1, 0, 0]  # 5 % of seven: item 1
    right = judged(world.by_table(BEST_FIRST))
    table = hallucination_measures(right, CASES, neighbours, POPULARITY)
    assert np.isnan(table["semantic hallucination"]).tolist() == [True, False, False, True, True]
    assert table["semantic error"].tolist() == [0, 0, 0, 0, 0]
    assert table["wrong"].tolist() == [0, 1, 1, 0, 0]


def test_answers_are_counted_over_all_cases():
    items = np.array([3, 3, 0, 5, 6])
    texts = ["c", "c", "who knows", "e", "f"]
    lists = fixed_lists(CASES, world.candidates(), "uniform", 4)
    table = answer_measures("uniform", items, texts, CASES, lists)
    assert table["list answer HR@1"].tolist() == [1, 0, 0, 0, 1]
    assert table["list valid"].tolist() == [1, 1, 0, 1, 1]
    assert table["list already seen"].tolist() == [0, 1, 0, 1, 1]
    assert table["list repeated"].tolist() == [0, 1, 0, 0, 0]
    assert table["list in candidates"].tolist() == [1, 0, 0, 0, 1]  # an invalid one is in no list
    assert "in candidates" not in answer_measures(CATALOGUE, items, texts, CASES)


def test_the_same_answer_to_another_user_is_no_repetition():
    table = answer_measures(CATALOGUE, np.full(5, 1), ["a"] * 5, CASES)
    assert table["repeated"].tolist() == [0, 1, 0, 1, 0]


def test_users_are_averaged_over_their_own_defined_cases():
    x, y = Metric("uniform", "HR", 1), Metric(CATALOGUE, "MRR")
    values = {x: np.array([1.0, 0, 1, np.nan, 0]), y: np.array([np.nan] * 2 + [1.0, 3, 5])}
    table = per_user_table(*user_means(CASES.users, values))
    assert table["user_index"].to_list() == [0, 0, 1, 1, 2, 2]
    assert table.select("lists", "measure", "k").rows() == [x, y] * 3
    assert table["value"].to_list() == [0.5, None, 1.0, 2.0, 0.0, 5.0]
    assert means_over_users(table) == {x: 0.5, y: 3.5}
    nobody = per_user_table(*user_means(CASES.users, {x: np.full(5, np.nan)}))
    assert means_over_users(nobody) == {x: None}


def test_cases_leave_their_lists_and_answers():
    one = judged(world.by_table(BEST_FIRST))
    table = one.table(CASES)
    assert table["recommended"].to_list()[1] == [5, 6]
    assert table["answer"].to_list() == [None] * 5
    # Items 1 3 4 5 6 of 7 are recommended, 1, 2, 2, 3 and 2 times.
    assert spread(one.recommended, 7)["coverage"] == pytest.approx(5 / 7)
    assert spread(one.recommended, 7)["gini"] == pytest.approx(
        sum((2 * i - 8) * x for i, x in enumerate([0, 0, 1, 2, 2, 2, 3], 1)) / (7 * 10)
    )

    def answer(where: np.ndarray) -> Response:
        uniform = [f"a{case}" for case in where]
        return Response(answers={"uniform": uniform, "popularity": ["b"] * 5})

    answered = judged(answer)
    assert answered.recommended is None
    table = answered.table(CASES)
    assert table["answer"].to_list() == ["a0", "a1", "a2", "a3", "a4"]
    assert table["recommended"].to_list() == [[]] * 5


def test_nearest_items_are_by_cosine_without_the_item_itself_or_padding():
    angles = np.deg2rad([0, 0, 10, 25, 90, 100, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array([[0, 1, 9, 2, 1, 3, 1]]).T
    near = nearest_items(vectors.astype(np.float32), np.array([2, 5, 2, 1]), 2)
    # Items at 0, 10, 25, 90, 100 and 180 degrees.
    assert near.tolist() == [[1, 3], [4, 3], [1, 3], [2, 3]]
