"""KAR's lists: blocks of what was taken next among drawn items, and the guard that proves them."""

import numpy as np
import polars as pl
import pytest

import recalign.splits.kar_lists
import recalign.splits.windows
from recalign.config import SplitsConfig
from recalign.errors import BadInputError, LeakageError
from recalign.lists import Lists
from recalign.schemas import INTERACTIONS, LISTS, WINDOWS
from recalign.splits.guard import check_prompts
from recalign.splits.kar_lists import check_lists, draw_lists
from recalign.splits.phases import phase_of
from recalign.splits.weighted_draws import first_new
from recalign.splits.windows import refuse_few_users, split_windows

CONFIG = SplitsConfig(protocol="kar", min_history=2)
N_ITEMS = 60


def interactions(items: list[list[int]], ratings: list[list[float | None]] | None = None):
    rows = [
        (user, item, position, position, ratings[user][position] if ratings else None)
        for user, own in enumerate(items)
        for position, item in enumerate(own)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def many(n_users: int, length: int = 25) -> pl.DataFrame:
    random = np.random.default_rng(0)
    taken = [(1 + random.permutation(N_ITEMS)[:length]).tolist() for _ in range(n_users)]
    rated = random.integers(1, 6, (n_users, length)).astype(float).tolist()
    return interactions(taken, rated)


def one_user(start: int, end: int) -> pl.DataFrame:
    return pl.DataFrame([(0, start, start, start, start, end, True)], schema=WINDOWS, orient="row")


def test_half_of_what_a_user_took_is_history_but_30_items_at_most():
    table = interactions([list(range(1, n + 1)) for n in (9, 10, 59, 100)])
    windows, _ = split_windows(table, CONFIG.model_copy(update={"test_users": 0.4}))
    assert windows["fit_start"].to_list() == [5, 5, 30, 30]


def test_every_user_has_one_window_and_the_shares_are_met():
    windows, counts = split_windows(many(2000), CONFIG)
    sizes = {phase: len(phase_of(windows, phase).users) for phase in
             ("fit", "reward", "valid", "test")}  # fmt: skip
    assert counts == {}
    assert sum(sizes.values()) == 2000
    assert sizes["fit"] == pytest.approx(800, abs=70)
    assert sizes["reward"] == pytest.approx(800, abs=70)
    assert sizes["valid"] == pytest.approx(200, abs=45)
    assert sizes["test"] == pytest.approx(200, abs=45)
    refuse_few_users(windows, CONFIG)


def test_a_users_window_does_not_depend_on_other_users():
    few, more = (split_windows(many(n), CONFIG)[0] for n in (200, 300))
    assert more.head(200).equals(few)


def test_users_without_a_block_after_half_of_their_items_only_train_the_oracle():
    table = interactions([list(range(1, 9)), list(range(1, 8)), *[list(range(1, 30))] * 20])
    windows, counts = split_windows(table, CONFIG)
    assert counts == {"short_sequence": 1}
    assert windows["prompted"].to_list()[:3] == [True, False, True]
    assert windows["fit_start"][1] == 7


def test_a_share_with_too_few_users_is_refused_by_name():
    windows, _ = split_windows(many(200), CONFIG)
    with pytest.raises(BadInputError, match=r"only \d+ of 200 users have a valid.*valid_users"):
        refuse_few_users(windows, CONFIG)


def test_a_list_is_the_next_block_and_drawn_items_in_order_of_index():
    taken = [9, 8, 7, 6, 5, 4, 3, 2, 1, 10, 11]
    ratings = [5.0, 5, 5, 4, 3, 3.5, None, 1, 5, 5, 5]
    table = interactions([taken], [ratings])
    lists, left_over = draw_lists(table, N_ITEMS, one_user(3, 11), CONFIG)
    assert lists["position"].to_list() == [3, 7]
    assert left_over == 0
    for items, block in zip(lists["items"].to_list(), ([6, 5, 4, 3], [2, 1, 10, 11]), strict=True):
        assert len(items) == 10
        assert items == sorted(set(items))
        assert set(block) <= set(items)
    liked = [
        {item for item, one in zip(items, positive, strict=True) if one}
        for items, positive in lists.select("items", "positive").iter_rows()
    ]
    assert liked == [{6, 4, 3}, {1, 10, 11}]  # above 3, or not rated
    assert check_lists(lists, table, one_user(3, 11), CONFIG) == 2


def test_what_does_not_fill_a_block_is_in_no_list_and_counted():
    lists, left_over = draw_lists(
        interactions([list(range(1, 12))]), N_ITEMS, one_user(4, 11), CONFIG
    )
    assert (lists.height, left_over) == (1, 3)


def test_an_item_taken_twice_in_a_block_stands_in_the_list_once():
    table = interactions([[1, 2, 3, 4, 5, 5, 6, 6]])
    lists, _ = draw_lists(table, N_ITEMS, one_user(4, 8), CONFIG)
    assert len(set(lists["items"][0])) == 10
    assert sum(lists["positive"][0]) == 2
    check_lists(lists, table, one_user(4, 8), CONFIG)


def test_drawn_items_may_have_been_taken_elsewhere_and_are_uniform():
    table = many(600)
    windows, _ = split_windows(table, CONFIG)
    lists, _ = draw_lists(table, N_ITEMS, windows, CONFIG)
    shown = lists.explode("items").join(
        table, left_on=["user_index", "items"], right_on=["user_index", "item_index"], how="left"
    )
    own = shown["position_right"] - shown["position"]
    drawn = shown.filter(~own.is_between(0, 3).fill_null(False))
    assert drawn["position_right"].is_not_null().mean() == pytest.approx(21 / 56, abs=0.03)
    assert drawn["items"].to_numpy().mean() == pytest.approx((N_ITEMS + 1) / 2, rel=0.03)


def test_a_users_lists_do_not_depend_on_other_users_but_on_the_seed():
    table = many(50)
    windows, _ = split_windows(table, CONFIG)
    lists, _ = draw_lists(table, N_ITEMS, windows, CONFIG)
    fewer = windows.with_columns(prompted=pl.col("user_index") == 7)
    alone, _ = draw_lists(table, N_ITEMS, fewer, CONFIG)
    assert alone.equals(lists.filter(user_index=7))
    again, _ = draw_lists(table, N_ITEMS, fewer, CONFIG.model_copy(update={"seed": 1}))
    assert not again["items"].equals(alone["items"])


def test_windows_and_lists_are_the_same_whatever_is_drawn_at_once(monkeypatch):
    table = many(50)
    windows, _ = split_windows(table, CONFIG)
    lists, left_over = draw_lists(table, N_ITEMS, windows, CONFIG)
    at_once: list[int] = []

    def watch(drawn, *others):
        at_once.append(len(drawn))
        return first_new(drawn, *others)

    monkeypatch.setattr(recalign.splits.windows, "USERS", 3)
    monkeypatch.setattr(recalign.splits.kar_lists, "ROWS", 3)
    monkeypatch.setattr(recalign.splits.kar_lists, "first_new", watch)
    assert split_windows(table, CONFIG)[0].equals(windows)
    again, also_left_over = draw_lists(table, N_ITEMS, windows, CONFIG)
    assert again.equals(lists)
    assert again.n_chunks() == 1
    assert also_left_over == left_over
    assert sum(at_once) == lists.height
    assert max(at_once) <= 3 + 3  # three lists each


def test_a_catalogue_too_small_to_draw_from_is_refused():
    with pytest.raises(BadInputError, match="catalogue of 39, at least 40"):
        draw_lists(interactions([list(range(1, 12))]), 39, one_user(4, 11), CONFIG)


def test_lists_are_found_by_user_and_told_apart_from_those_without_a_positive_item():
    table = many(40)
    windows, _ = split_windows(table, CONFIG)
    drawn, _ = draw_lists(table, N_ITEMS, windows, CONFIG)
    users = phase_of(windows, "fit").users
    lists = Lists.of(drawn, users)
    assert (users[lists.owners] == drawn.filter(pl.col("user_index").is_in(users.tolist()))
            ["user_index"].to_numpy()).all()  # fmt: skip
    places = np.array([3, 0])
    some = lists.of_users(places)
    assert (some.items == np.concatenate([lists.items[lists.owners == p] for p in places])).all()
    assert sorted(set(some.owners.tolist())) == [0, 1]
    none = Lists(np.zeros(2, int), np.ones((2, 3), int), np.array([[0, 0, 0], [0, 1, 1]], bool))
    assert none.with_positives().targets().tolist() == [[0, 2, 3]]


GOOD = {
    "user_index": 0,
    "position": 4,
    "items": [1, 2, 3, 4, 50, 51],
    "positive": [True, True, False, True, False, False],
}
RATED: list[float | None] = [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 2.0, 5.0, 5.0]
TABLE = interactions([[9, 8, 7, 6, 1, 2, 3, 4, 10]], [RATED])


def proved(changes: dict[str, object], windows: pl.DataFrame | None = None) -> int:
    lists = pl.DataFrame([GOOD | changes], schema=LISTS)
    shorter = CONFIG.model_copy(update={"drawn": 2})
    return check_lists(lists, TABLE, one_user(4, 9) if windows is None else windows, shorter)


def test_a_right_list_is_proved():
    assert proved({}) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"position": 3}, "position 3 is outside the window .positions 4..8"),
        ({"position": 6}, "position 6 is outside the window"),
        ({"items": [1, 2, 3, 49, 50, 51]}, "lacks item 4 of its block"),
        ({"items": [1, 2, 3, 4, 4, 5]}, "not a list of different items"),
        ({"items": [0, 1, 2, 3, 4, 5]}, "not a list of different items"),
        ({"items": [1, 2, 3, 4]}, "not a list of 6 items"),
        ({"positive": [True, True, True, True, False, False]}, "labels item 3 wrongly"),
        ({"positive": [True, False, False, True, False, False]}, "labels item 2 wrongly"),
        (
            {"positive": [True, True, False, True, True, False]},
            "labels item 50 wrongly.*never took",
        ),
    ],
)
def test_a_wrong_list_is_refused_by_row_user_and_item(changes, told):
    with pytest.raises(LeakageError, match=rf"lists, row 0, user 0: .*{told}"):
        proved(changes)


def test_users_with_two_windows_are_refused():
    rows = [(0, 4, 6, 9, 9, 9, True)]
    windows = pl.DataFrame(rows, schema=WINDOWS, orient="row")
    with pytest.raises(LeakageError, match="user 0: has several windows"):
        proved({}, windows)
    prompts = pl.DataFrame(
        schema={"user_index": pl.Int32, "cutoff": pl.Int32, "first_position": pl.Int32,
                "items": pl.List(pl.Int32), "prompt": pl.String}
    )  # fmt: skip
    with pytest.raises(LeakageError, match="several windows"):
        check_prompts(prompts, TABLE, windows, "fit", str, protocol="kar")


def test_a_list_of_a_user_without_a_window_is_refused():
    windows = one_user(9, 9).with_columns(prompted=False)
    with pytest.raises(LeakageError, match="there is none"):
        proved({}, windows)
