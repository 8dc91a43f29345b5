"""Users are cut by what is known before the test, and each part is what its users alone give."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recalign.config import EvaluationPhase
from recalign.evaluation.per_user import per_user_table, rows_per_user
from recalign.evaluation.result_table import ResultRow, resample, rows_of
from recalign.evaluation.segments import KINDS, segment_results, user_segments
from recalign.lists import Lists
from recalign.metric_columns import NDCG_AT_10
from recalign.report.sections import segments_section
from recalign.schemas import INTERACTIONS, ITEMS, SEGMENTS, WINDOWS, check_table
from recalign.sequences import Sequences
from recalign.splits.phases import phase_of
from tasks.report import segmented, targets_of
from tasks.tables import Tables

POPULARITY = np.array([0, 100, 50, 20, 5, 2, 1])
HISTORIES = [[1, 1], [1, 2, 2], [3, 3, 3], [4, 4, 4, 4], [5, 5, 5, 5, 5], [6, 6, 6, 6, 6, 6]]
TARGETS = [[6], [5], [4], [3], [2], [1]]
USERS = np.arange(6)
STARTS = np.array([len(items) for items in HISTORIES])


def sequences(histories=HISTORIES, after=TARGETS) -> Sequences:
    taken = [own + later for own, later in zip(histories, after, strict=True)]
    offsets = np.cumsum([0, *map(len, taken)])
    return Sequences(offsets, np.concatenate(taken), 6)


def cut(**changes):
    given: dict[str, Any] = {
        "sequences": sequences(), "users": USERS, "starts": STARTS, "targets": TARGETS,
        "popularity": POPULARITY,
    }  # fmt: skip
    return {key: users.tolist() for key, users in user_segments(**(given | changes)).items()}


def line_of(kind, segment):
    per_user = rows_per_user({"base": per_user_table(np.arange(2), {NDCG_AT_10: np.arange(2.0)})})
    rows = [ResultRow("base", "base", "greedy", "frozen")]
    return segment_results(per_user, rows, {(kind, segment): np.arange(2)}, 100, seed=0)


def test_thirds_and_halves_are_those_of_popularity_and_length():
    assert cut() == {
        ("taste", "niche"): [4, 5], ("taste", "between"): [2, 3], ("taste", "mainstream"): [0, 1],
        ("history", "short"): [0, 1, 2], ("history", "medium"): [3], ("history", "long"): [4, 5],
        ("targets", "cold"): [0, 1, 2], ("targets", "warm"): [3, 4, 5],
    }  # fmt: skip


def test_only_the_cut_by_targets_reads_the_test_window():
    other = cut(sequences=sequences(after=TARGETS[::-1]), targets=TARGETS[::-1])
    assert {key: users for key, users in other.items() if key[0] != "targets"} == {
        key: users for key, users in cut().items() if key[0] != "targets"
    }
    assert other["targets", "cold"] == [3, 4, 5]


def test_where_all_are_cut_at_the_same_moments_users_are_cut_by_when_their_test_begins():
    moments = np.zeros(len(sequences().items))
    moments[sequences().offsets[USERS] + STARTS] = [30, 10, 20, 60, 50, 40]
    times = {key[1]: users for key, users in cut(timestamps=moments).items() if key[0] == "time"}
    assert times == {"early": [1, 2], "middle": [0, 5], "late": [3, 4]}


def test_every_user_is_in_one_part_of_each_kind_and_equals_are_not_parted():
    segments = cut(starts=np.array([2, 2, 2, 2, 2, 3]))
    for kind in ("taste", "history", "targets"):
        parts = [users for (of, _), users in segments.items() if of == kind]
        assert sorted(user for part in parts for user in part) == USERS.tolist()
    assert segments["history", KINDS["history"][0]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("starts", "parts"),
    [
        ([30, 30, 30, 30, 5, 9], {"short": [4, 5], "long": [0, 1, 2, 3]}),
        ([30, 30, 30, 4, 5, 9], {"short": [3, 4], "medium": [5], "long": [0, 1, 2]}),
        ([30, 30, 30, 30, 30, 9], {"short": [5], "long": [0, 1, 2, 3, 4]}),
        ([4, 5, 30, 30, 31, 31], {"short": [0, 1], "medium": [2, 3], "long": [4, 5]}),
        ([30] * 6, {}),
    ],
)
def test_where_many_histories_are_as_long_as_they_may_be_those_are_the_long_ones(starts, parts):
    segments = cut(sequences=sequences([[1] * 31] * 6), starts=np.array(starts))
    assert {name: users for (kind, name), users in segments.items() if kind == "history"} == parts


def test_targets_that_many_users_share_at_the_top_are_the_warm_ones_and_shared_by_all_none():
    warm = cut(targets=[[1], [1], [1], [1], [6], [5]])
    assert (warm["targets", "cold"], warm["targets", "warm"]) == ([4, 5], [0, 1, 2, 3])
    assert not [key for key in cut(targets=[[1]] * 6) if key[0] == "targets"]


def test_who_is_judged_by_no_item_is_neither_cold_nor_warm():
    parts = cut(targets=[[], [5], [4], [3], [2], []])
    assert {key[1]: users for key, users in parts.items() if key[0] == "targets"} == {
        "cold": [1, 2], "warm": [3, 4]
    }  # fmt: skip
    assert parts["history", "short"] == [0, 1, 2]
    assert not [key for key in cut(targets=[[]] * 6) if key[0] == "targets"]


def test_what_belongs_first_in_a_users_lists_is_what_the_user_is_judged_by():
    lists = Lists(
        owners=np.array([0, 0, 2]),
        items=np.array([[1, 2, 3], [4, 5, 6], [1, 5, 6]]),
        positive=np.array([[True, False, True], [False, True, False], [False, False, True]]),
    )
    assert [own.tolist() for own in lists.positives(4)] == [[1, 3, 5], [], [6], []]


def test_of_users_who_are_all_alike_nobody_gains_more_and_the_page_says_so():
    alike = [[1, 1]] * 2
    targets = [np.array([2])] * 2
    taken = sequences(alike, [[2]] * 2)
    segments = user_segments(taken, np.arange(2), np.full(2, 2), targets, POPULARITY)
    told = segment_results(pl.DataFrame(), [], segments, 100, seed=0)
    assert check_table(told, SEGMENTS, "segments").is_empty()
    section = segments_section(told)
    assert section.note.endswith("Not cut by taste or history or targets, in which all users are "
                                 "alike.")  # fmt: skip
    assert not section.grids
    other = segments_section(
        told.vstack(line_of("taste", "niche")).vstack(line_of("targets", "cold"))
    )
    assert "Not cut by history, in which all users are alike. That one" in other.note
    assert [row[0].text for row in other.grids[0].rows] == ["niche", "cold"]


def test_a_segment_is_the_result_table_of_its_own_users():
    random = np.random.default_rng(0)
    values = {"mine": random.random(6), "base": random.random(6)}
    per_user = rows_per_user(
        {name: per_user_table(USERS, {NDCG_AT_10: one}) for name, one in values.items()}
    )
    rows = [
        ResultRow("base", "base", "greedy", "frozen"),
        ResultRow("mine", "aligned", "greedy", "frozen", base="base"),
    ]
    segments = {("taste", "niche"): np.array([4, 5]), ("targets", "warm"): np.array([0, 3, 5])}
    told = segment_results(per_user, rows, segments, 200, seed=0)
    for (kind, name), users in segments.items():
        lines = told.filter(kind=kind, segment=name)
        own = per_user.filter(pl.col("user_index").is_in(users.tolist()))
        assert lines.drop("kind", "segment").equals(resample(own, 200, 0).results(rows))
        gain = (values["mine"] - values["base"])[users].mean()
        assert lines.filter(row="mine")["difference"].item() == pytest.approx(gain)
    assert rows_of(told) == rows


@pytest.mark.parametrize(("n_judged", "warm"), [(1, 0), (3, 1)])
def test_targets_that_nobody_is_judged_on_decide_no_segment(n_judged, warm):
    popular, rare = 1, 2
    taken = [[popular, popular, popular, rare, rare], [popular, 3, rare, popular, popular]]
    rows = [(user, item, at, at, None) for user, own in enumerate(taken)
            for at, item in enumerate(own)]  # fmt: skip
    interactions = pl.DataFrame(rows, schema=INTERACTIONS, orient="row")
    windows = pl.DataFrame(
        [(user, 2, 2, 2, 2, 5, True) for user in (0, 1)], schema=WINDOWS, orient="row"
    )
    tables = Tables(
        interactions, pl.DataFrame(schema=ITEMS), windows, Sequences.of(interactions, 3), "per_user"
    )
    per_user = rows_per_user({"base": per_user_table(np.arange(2), {NDCG_AT_10: np.arange(2.0)})})
    row = ResultRow("base", "base", "greedy", "frozen")
    judging = EvaluationPhase(phase="test", n_resamples=100)
    judged = targets_of(tables, phase_of(windows, "test").first(n_judged))
    told = segmented(tables, judging, per_user, [row], judged)
    own = told.filter(kind="targets", segment="warm")
    assert own["mean"].to_list() == [float(warm)]
