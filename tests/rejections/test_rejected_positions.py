"""Which positions make pairs."""

import numpy as np
import polars as pl
import pytest

from recalign.errors import UserError
from recalign.rejections.positions import draw_positions, fresh_positions
from recalign.schemas import WINDOWS


def windows(*rows: tuple[int, int, int], fit: int = 2) -> pl.DataFrame:
    """(user, reward_start, valid_start) of prompted users, and one user who is not prompted."""
    table = [(user, s - fit, s, valid, valid + 1, valid + 2, True) for user, s, valid in rows]
    return pl.DataFrame([*table, (99, 4, 4, 9, 9, 9, False)], schema=WINDOWS, orient="row")


def drawn(table: pl.DataFrame, n_pairs: int, seed: int) -> list[tuple[int, int]]:
    users, positions = draw_positions(table, n_pairs, seed)
    return list(zip(users.tolist(), positions.tolist(), strict=True))


def test_without_a_limit_every_position_of_the_reward_window_makes_a_pair():
    assert drawn(windows((0, 5, 8), (1, 3, 3), (2, 6, 7)), 100, 0) == [
        (0, 5),
        (0, 6),
        (0, 7),
        (2, 6),
    ]


def test_every_user_gives_one_position_before_any_gives_two():
    table = windows(*[(user, 5, 15) for user in range(20)])
    for n_pairs, counts in ((20, {1}), (27, {1, 2}), (60, {3})):
        users, _ = draw_positions(table, n_pairs, 1)
        assert set(np.bincount(users).tolist()) == counts
        assert len(users) == n_pairs


def test_fewer_pairs_are_a_part_of_more_and_others_do_not_matter_for_a_users_order():
    table = windows(*[(user, 5, 15) for user in range(20)])
    assert set(drawn(table, 13, 1)) < set(drawn(table, 40, 1)) < set(drawn(table, 90, 1))
    alone = drawn(windows((3, 5, 15)), 4, 1)
    assert alone == [pair for pair in drawn(table, 80, 1) if pair[0] == 3]


def test_the_seed_moves_the_positions():
    table = windows(*[(user, 5, 15) for user in range(20)])
    assert drawn(table, 20, 1) != drawn(table, 20, 2)


def fresh(table: pl.DataFrame, n_pairs: int, matched: list[int]) -> list[tuple[int, int]]:
    users, positions = fresh_positions(table, n_pairs, 1, np.array(matched, dtype=np.int64))
    return list(zip(users.tolist(), positions.tolist(), strict=True))


def test_fresh_positions_are_other_ones_as_many_of_every_user_as_are_matched():
    table = windows(*[(user, 5, 10) for user in range(20)])
    matched = [user for user in range(20) for _ in range(user % 4)]
    found = fresh(table, 60, matched)
    assert [user for user, _ in found] == matched
    assert not set(found) & set(drawn(table, 60, 1))
    assert len(set(found)) == len(found)
    assert min(position for _, position in found) < 5  # the fit window gives some too


def test_what_a_user_cannot_give_is_taken_from_others_and_fewer_where_nobody_has_any():
    table = windows((0, 3, 4), (1, 5, 15), fit=0)
    assert drawn(table, 2, 1)[0] == (0, 3)
    found = fresh(table, 2, [0, 0, 1])
    assert [user for user, _ in found] == [1, 1, 1]
    assert len(fresh(table, 2, [0, 1] * 10)) == 9


def test_without_any_item_left_for_fresh_pairs_it_is_said_what_would_leave_some():
    table = windows((0, 3, 4), (1, 5, 7), fit=0)
    with pytest.raises(UserError, match=r"raise splits\.fit .* or lower rejections\.n_pairs"):
        fresh(table, 100, [0, 1, 1])
    assert len(fresh(table, 2, [0, 1])) == 1
