import time
from math import sqrt

import numpy as np
import polars as pl

from recalign.config import SplitsConfig
from recalign.schemas import WINDOWS
from recalign.sequences import Sequences
from recalign.splits.candidates import count_short, draw_candidates, history_popularity
from recalign.splits.weighted_draws import WeightedDraws, first_new


def sequences(items: list[list[int]], n_items: int) -> Sequences:
    offsets = np.cumsum([0, *map(len, items)])
    return Sequences(offsets, np.concatenate(items).astype(np.int64), n_items)


def windows(starts: list[int], ends: list[int], prompted: list[bool] | None = None) -> pl.DataFrame:
    users = range(len(starts))
    flags = [True] * len(starts) if prompted is None else prompted
    rows = [(u, starts[u], starts[u], starts[u], starts[u], ends[u], flags[u]) for u in users]
    return pl.DataFrame(rows, schema=WINDOWS, orient="row")


def world(n_users: int, n_items: int, length: int) -> tuple[Sequences, pl.DataFrame]:
    generator = np.random.default_rng(0)
    items = [generator.integers(1, n_items + 1, length).tolist() for _ in range(n_users)]
    return sequences(items, n_items), windows([length - 5] * n_users, [length] * n_users)


def lists(table: pl.DataFrame, kind: str) -> dict[int, list[int]]:
    own = table.filter(pl.col("kind") == kind)
    return dict(zip(own["user_index"].to_list(), own["negatives"].to_list(), strict=True))


def test_negatives_are_distinct_items_that_the_user_never_took_at_any_position():
    items, table = world(50, 300, 40)
    candidates = draw_candidates(items, table, SplitsConfig(n_negatives=60))
    assert candidates.height == 100
    for user, negatives in candidates.select("user_index", "negatives").iter_rows():
        assert len(set(negatives)) == 60
        assert min(negatives) >= 1
        assert max(negatives) <= 300
        assert not set(negatives) & set(items.slice(user, 0, 40).tolist())


def test_lists_are_equal_on_every_draw_and_differ_by_seed_user_and_kind():
    items, table = world(3, 500, 10)
    first = draw_candidates(items, table, SplitsConfig())
    assert draw_candidates(items, table, SplitsConfig()).equals(first)
    other_seed = draw_candidates(items, table, SplitsConfig(seed=1))
    drawn = {tuple(own) for own in [*first["negatives"], *other_seed["negatives"]]}
    assert len(drawn) == 12


def test_a_users_list_does_not_depend_on_which_other_users_are_prompted_or_on_their_order():
    items, table = world(6, 500, 10)
    everyone = lists(draw_candidates(items, table, SplitsConfig()), "popularity")
    some = table.with_columns(pl.col("user_index").is_in([1, 4]).alias("prompted")).reverse()
    few = lists(draw_candidates(items, some, SplitsConfig()), "popularity")
    assert few == {1: everyone[1], 4: everyone[4]}


def test_the_first_negatives_of_a_list_are_a_fair_draw_of_their_own():
    items, table = world(400, 500, 10)
    drawn = lists(draw_candidates(items, table, SplitsConfig(n_negatives=99)), "uniform")
    first = np.array([own[:10] for own in drawn.values()])
    # Uniform on 1..500: mean 250.5, standard deviation 144.3 per item.
    assert abs(first.mean() - 250.5) <= 4 * 144.3 / sqrt(first.size)


def test_popularity_counts_history_windows_only():
    items = sequences([[1, 1, 2, 3], [1, 3, 3, 4, 4]], 5)
    table = windows([3, 2], [4, 5])  # histories 1 1 2 and 1 3
    assert history_popularity(items, table).tolist() == [0, 3, 1, 1, 0, 0]


def test_popular_negatives_are_drawn_in_proportion_to_popularity_to_the_alpha():
    # Item 1 occurs 16 times in histories, item 2 once, item 3 four times; the users took item 4.
    history = [[1] * 16 + [2] + [3] * 4 + [4]]
    takers = [[4, 4] for _ in range(2000)]
    items = sequences(history + takers, 4)
    table = windows([22] + [1] * 2000, [22] + [2] * 2000, [False] + [True] * 2000)
    config = SplitsConfig(n_negatives=1, popularity_alpha=0.5)
    candidates = draw_candidates(items, table, config)
    drawn = np.bincount([own[0] for own in lists(candidates, "popularity").values()], minlength=5)
    for item, share in ((1, 4 / 7), (2, 1 / 7), (3, 2 / 7), (4, 0.0)):
        assert abs(drawn[item] / 2000 - share) <= 4 * sqrt(share * (1 - share) / 2000)
    even = np.bincount([own[0] for own in lists(candidates, "uniform").values()], minlength=5)
    for item in (1, 2, 3):
        assert abs(even[item] / 2000 - 1 / 3) <= 4 * sqrt(2 / 9 / 2000)


def test_completing_a_list_follows_successive_draws():
    # Two of three items with weights 8, 1, 1: P(the heavy one is first) = .8, P(second) = .2 * 8/9.
    # Nearly every draw hits item 4, which is taken: the lists have to be completed.
    history = [[1] * 8 + [2] + [3] + [4] * 100_000]
    takers = [[4] for _ in range(3000)]
    items = sequences(history + takers, 4)
    n = len(history[0])
    table = windows([n] + [0] * 3000, [n] + [1] * 3000, [False] + [True] * 3000)
    config = SplitsConfig(n_negatives=2, popularity_alpha=1)
    drawn = list(lists(draw_candidates(items, table, config), "popularity").values())
    first = np.mean([own[0] == 1 for own in drawn])
    second = np.mean([own[1] == 1 for own in drawn])
    assert abs(first - 0.8) <= 4 * sqrt(0.8 * 0.2 / 3000)
    assert abs(second - 0.2 * 8 / 9) <= 4 * sqrt(0.18 * 0.82 / 3000)


def test_a_small_catalogue_gives_all_untaken_items_popular_ones_first_and_is_counted():
    items = sequences([[1, 2], [3, 3, 4]], 6)
    table = windows([2, 3], [2, 3])
    config = SplitsConfig(n_negatives=10)
    candidates = draw_candidates(items, table, config)
    popular = lists(candidates, "popularity")
    assert sorted(popular[0]) == [3, 4, 5, 6]
    assert sorted(popular[0][:2]) == [3, 4]
    assert sorted(lists(candidates, "uniform")[1]) == [1, 2, 5, 6]
    assert count_short(candidates, config) == {"short_popularity": 2, "short_uniform": 2}
    assert count_short(candidates, SplitsConfig(n_negatives=4)) == {}


def test_users_that_are_not_prompted_get_no_lists():
    items, _ = world(2, 200, 10)
    table = windows([5, 10], [10, 10], [True, False])
    assert draw_candidates(items, table, SplitsConfig())["user_index"].unique().to_list() == [0]


def test_six_thousand_users_times_99_take_seconds():
    items, table = world(6000, 3500, 60)
    started = time.process_time()
    candidates = draw_candidates(items, table, SplitsConfig())
    assert time.process_time() - started < 5
    assert candidates["negatives"].list.len().to_list() == [99] * 12_000


def test_tables_find_the_items_that_a_search_in_the_sums_finds():
    weights = np.array([0.0, 5.0, 0.0, 1e-9, 2.5, 0.1, 0.0])
    draws = WeightedDraws.of(weights)
    cumulated = np.cumsum(weights)
    borders = cumulated[1:-1] / cumulated[-1]
    random = np.random.default_rng(0).random(5000)
    uniform = np.concatenate([random, borders, np.nextafter(borders, 0), [0.0, 1 - 2**-53]])
    found = np.searchsorted(cumulated, uniform * cumulated[-1], side="right")
    assert draws(uniform).tolist() == np.minimum(found, 6).tolist()


def test_without_any_weight_the_last_item_is_drawn_whatever_the_number():
    assert WeightedDraws.of(np.zeros(4))(np.array([0.0, 0.7])).tolist() == [3, 3]


def test_the_first_new_items_of_a_row_are_neither_taken_nor_repeated():
    drawn = np.array([[4, 2, 4, 9, 7, 2], [1, 1, 1, 1, 1, 1]], dtype=np.int32)
    taken = np.array([[2, 0], [3, 8]])
    for n_items in (9, 2**30):  # one integer of 32 bits holds an item and its order, or does not
        assert first_new(drawn, taken, 3, n_items).tolist() == [[4, 9, 7], [1, 0, 0]]
