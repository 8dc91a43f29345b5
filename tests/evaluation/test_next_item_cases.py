"""Which next items are judged, with which lists."""

import numpy as np
import polars as pl
import pytest

from recalign.evaluation.next_items.cases import cases_of
from recalign.evaluation.next_items.fixed_lists import fixed_lists, shown_order
from recalign.schemas import CANDIDATES
from tests.evaluation import next_item_world as world


def test_cases_are_the_windows_items_in_order_with_what_came_before():
    cases = world.all_cases()
    assert cases.users.tolist() == [0, 0, 1, 1, 2]
    assert cases.positions.tolist() == [2, 3, 2, 3, 2]
    assert cases.targets.tolist() == [3, 4, 5, 1, 6]
    assert cases.numbers.tolist() == [0, 1, 0, 1, 0]
    seen = cases.seen(np.arange(5))
    # The target of user 2 was taken before: it alone of the seen items stays recommendable.
    assert [sorted(set(row) - {0}) for row in seen.tolist()] == [
        [1, 2],
        [1, 2, 3],
        [2],
        [2, 5],
        [7],
    ]


def test_the_first_cases_of_each_window_are_kept():
    cases = world.all_cases(n_cases=1)
    assert cases.users.tolist() == [0, 1, 2]
    assert cases.targets.tolist() == [3, 5, 6]


def test_prompts_end_right_before_their_targets():
    table = world.all_cases().prompts(2, lambda case, items: f"{case}: {items}")
    assert table["cutoff"].to_list() == [2, 3, 2, 3, 2]
    assert table["first_position"].to_list() == [0, 1, 0, 1, 0]
    assert table["prompt"].to_list() == [
        "0: [1, 2]", "1: [2, 3]", "2: [2, 2]", "3: [2, 5]", "4: [6, 7]",
    ]  # fmt: skip


def test_lists_are_the_target_and_the_drawn_items_block_by_block():
    lists = fixed_lists(world.all_cases(), world.candidates(), "uniform", 3)
    # Blocks of two: user 0 drew 5 6 7 (the second block begins again behind 7), user 1 3 4 6 7,
    # user 2 only one item.
    assert lists.tolist() == [[3, 5, 6], [4, 7, 5], [5, 3, 4], [1, 6, 7], [6, 1, 0]]
    popular = fixed_lists(world.all_cases(), world.candidates(), "popularity", 3)
    assert popular.tolist() == [[3, 7, 6], [4, 5, 7], [5, 7, 6], [1, 4, 3], [6, 1, 0]]


def test_lists_repeat_no_item_however_the_blocks_wrap_round():
    cases = cases_of(world.sequences(), np.array([1]), np.array([0]), np.array([4]), 0)
    lists = fixed_lists(cases, world.candidates(), "uniform", 4)
    assert lists[:, 1:].tolist() == [[3, 4, 6], [7, 3, 4], [6, 7, 3], [4, 6, 7]]


def test_lists_of_users_who_took_everything_hold_the_target_alone():
    nothing = world.candidates().with_columns(negatives=pl.lit([], dtype=pl.List(pl.Int64)))
    lists = fixed_lists(world.all_cases(), nothing.cast(pl.Schema(CANDIDATES)), "uniform", 3)
    assert lists.tolist() == [[3, 0, 0], [4, 0, 0], [5, 0, 0], [1, 0, 0], [6, 0, 0]]


def test_a_user_without_drawn_items_is_refused():
    with pytest.raises(ValueError, match="no uniform candidates"):
        fixed_lists(world.all_cases(), world.candidates().filter(user_index=0), "uniform", 3)


def test_lists_are_shown_in_an_order_of_their_own_that_does_not_depend_on_other_cases():
    cases, few = world.all_cases(), world.all_cases(n_cases=1)
    lists = fixed_lists(cases, world.candidates(), "uniform", 4)
    shown = shown_order(cases, lists, "uniform", seed=1)
    assert [sorted(items) for items in shown] == [sorted(set(row) - {0}) for row in lists.tolist()]
    alone = shown_order(few, lists[[0, 2, 4]], "uniform", seed=1)
    assert alone == [shown[0], shown[2], shown[4]]
    many = [shown_order(few, lists[[0, 2, 4]], "uniform", seed=s)[0] for s in range(40)]
    places = [items.index(3) for items in many]  # where the true item stands
    assert set(places) == {0, 1, 2, 3}
