import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import polars as pl
import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions import order
from recalign.interactions.ingest import Ingested, ingest
from recalign.interactions.kcore import k_core
from recalign.interactions.rawtables import RAW_INTERACTIONS, RAW_ITEMS, RawTables
from recalign.schemas import INTERACTIONS, ITEMS, USERS, check_table

Row = tuple[str, str, int, float | None]


def raw(rows: list[Row], titles: dict[str, str | None] | None = None) -> RawTables:
    ids = {item: item.upper() for _, item, _, _ in rows} if titles is None else titles
    items: list[tuple[str, str | None, list]] = [(item, title, []) for item, title in ids.items()]
    return RawTables(
        pl.DataFrame(rows, schema=RAW_INTERACTIONS, orient="row"),
        pl.DataFrame(items, schema=RAW_ITEMS, orient="row"),
    )


def settings(**values: object) -> InteractionsConfig:
    return InteractionsConfig.model_validate({"k_core": 0, **values})


def sequences(tables: Ingested) -> dict[str, list[str]]:
    """Item ids of each user in the order of position."""
    named = tables.interactions.join(tables.users, on="user_index").join(
        tables.items, on="item_index"
    )
    groups = named.sort("user_index", "position").group_by("user_id", maintain_order=True)
    return {str(key[0]): group["item_id"].to_list() for key, group in groups}


def test_sequences_are_in_order_of_time_and_ties_keep_the_row_order():
    rows: list[Row] = [("u", "c", 5, None), ("u", "b", 5, None), ("v", "a", 9, None)]
    rows += [("u", "a", 1, None), ("u", "d", 5, None)]
    tables = ingest(raw(rows), settings())
    assert sequences(tables) == {"u": ["a", "c", "b", "d"], "v": ["a"]}
    assert tables.interactions["position"].to_list() == [0, 1, 2, 3, 0]


def test_indices_follow_the_ids_shorter_first_whatever_the_row_order():
    rows: list[Row] = [(user, item, 0, None) for user in ("10", "9", "b") for item in ("2", "11")]
    for placed in (rows, rows[::-1]):
        tables = ingest(raw(placed), settings())
        assert tables.users["user_id"].to_list() == ["9", "b", "10"]
        assert tables.users["user_index"].to_list() == [0, 1, 2]
        assert tables.items["item_id"].to_list() == ["2", "11"]
        assert tables.items["item_index"].to_list() == [1, 2]


def test_every_row_is_kept_or_counted_with_the_first_reason_that_met_it():
    rows: list[Row] = [
        ("u", "a", 1, 5.0),
        ("u", "a", 2, 4.0),  # duplicate
        ("u", "b", 3, 2.0),  # low rating
        ("u", "b", 4, None),  # no rating
        ("u", "?", 5, 5.0),  # unknown item
        ("u", "c", 6, 3.0),
        ("v", "a", 7, 5.0),
        ("v", "c", 8, 5.0),
        ("v", "d", 9, 5.0),  # falls out of the 2-core
    ]
    titles: dict[str, str | None] = {item: item for item in "abcd"}
    tables = ingest(raw(rows, titles), settings(min_rating=3.0, k_core=2))
    assert tables.dropped == {
        "no_rating": 1,
        "low_rating": 1,
        "unknown_item": 1,
        "duplicate": 1,
        "k_core": 1,
    }
    assert tables.interactions.height + sum(tables.dropped.values()) == len(rows)
    assert sequences(tables) == {"u": ["a", "c"], "v": ["a", "c"]}
    assert tables.noted == {"items_without_interactions": 2}


def test_ratings_of_up_to_100_and_plays_have_a_least_one_too():
    rows: list[Row] = [("u", "a", 1, 60.0), ("u", "b", 2, 40.0), ("u", "c", 3, 90_000.0)]
    tables = ingest(raw(rows, {item: item for item in "abc"}), settings(min_rating=50))
    assert sequences(tables) == {"u": ["a", "c"]}


@pytest.mark.parametrize(("policy", "expected"), [("first", "ab"), ("last", "ba"), ("keep", "aba")])
def test_of_repeated_interactions_the_first_the_last_or_all_in_time_stay(policy, expected):
    rows: list[Row] = [("u", "a", 9, None), ("u", "b", 5, None), ("u", "a", 1, None)]
    tables = ingest(raw(rows), settings(duplicates=policy))
    assert sequences(tables) == {"u": list(expected)}


def test_k_core_unravels_to_a_fixed_point():
    # A chain: each end has one link, so a single pass over users and items never suffices.
    rows: list[Row] = [
        (f"u{i}", item, 0, None) for i in range(9) for item in (f"i{i}", f"i{i + 1}")
    ]
    square: list[Row] = [(user, item, 0, None) for user in ("x", "y") for item in ("s", "t")]
    tables = ingest(raw(rows + square), settings(k_core=2))
    assert sequences(tables) == {"x": ["s", "t"], "y": ["s", "t"]}
    assert tables.dropped == {"k_core": len(rows)}


def test_k_core_equals_the_definition_on_random_data():
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 40, 300), generator.integers(0, 40, 300)
    kept = set(range(300))
    while True:
        thin = {
            row
            for row in kept
            if sum(users[other] == users[row] for other in kept) < 5
            or sum(items[other] == items[row] for other in kept) < 5
        }
        if not thin:
            break
        kept -= thin
    assert np.flatnonzero(k_core(users, items, 5)).tolist() == sorted(kept)
    assert 0 < len(kept) < 300


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("repeats", ["first", "last", "keep"])
@pytest.mark.parametrize("latest", [50, 2**62])  # times that fit into a packed key, or do not
def test_the_order_is_by_user_then_time_then_row_across_slices(
    monkeypatch, shuffled, repeats, latest
):
    monkeypatch.setattr(order, "SLICE", 64)
    draws = np.random.default_rng(4)
    users, items = draws.integers(0, 60, 3000), draws.integers(0, 20, 3000)
    users[:200] = 7  # one user is longer than a slice
    users = (users if shuffled else np.sort(users)).astype(np.int32)
    times = draws.integers(0, latest, 3000)
    by_time = sorted(range(3000), key=lambda row: (users[row], times[row]))
    expected, met = [], set()
    for row in by_time if repeats != "last" else reversed(by_time):
        pair = (users[row], items[row])
        if repeats == "keep" or pair not in met:
            expected.append(row)
        met.add(pair)
    expected = expected if repeats != "last" else expected[::-1]
    given: dict[str, np.ndarray] = {
        "user": users,
        "item": items.astype(np.int32),
        "time": times,
        "row": np.arange(3000),
    }
    made = order.chronological({name: column.copy() for name, column in given.items()}, repeats)
    assert made["row"].tolist() == expected
    for name, column in given.items():
        assert made[name].tolist() == column[expected].tolist()


def test_sorting_a_long_table_takes_no_second_one():
    n = 400_000
    users = np.repeat(np.arange(n // 100, dtype=np.int32), 100)
    table: dict[str, np.ndarray] = {
        "user": users,
        "item": np.tile(np.arange(100, dtype=np.int32), n // 100),
    }
    table |= {"time": np.arange(n)[::-1].copy(), "rating": np.zeros(n, dtype=np.float32)}
    size = sum(column.nbytes for column in table.values())
    tracemalloc.start()
    made = order.chronological(table, "first")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made["time"][:3].tolist() == [n - 100, n - 99, n - 98]
    assert peak < size / 4


def test_ids_that_are_numbers_are_ordered_and_named_as_text_would_be():
    draws = np.random.default_rng(5)
    for largest in (300, 2**32 - 1):  # looked up in a table, or sorted
        numbers = pl.Series(draws.integers(0, largest, 500, endpoint=True), dtype=pl.UInt32)
        for ids in (numbers, numbers.cast(pl.String)):
            codes, behind = order.coded(ids)
            assert np.array_equal(
                np.argsort(codes, kind="stable"), np.argsort(numbers, kind="stable")
            )
            assert behind.of(codes).to_list() == numbers.cast(pl.String).to_list()
            assert codes.max() < behind.n


def test_items_without_title_are_called_by_their_id_and_counted():
    rows: list[Row] = [("u", "a", 1, None), ("u", "b", 2, None)]
    tables = ingest(raw(rows, {"a": None, "b": "Bee"}), settings())
    assert tables.items["title"].to_list() == ["a", "Bee"]
    assert tables.noted == {"items_without_title": 1}


def test_when_nothing_is_left_the_message_says_what_dropped_the_rows():
    rows: list[Row] = [("u", "a", 1, 2.0), ("v", "b", 2, 5.0)]
    message = r"left of 2 read: dropped 1 by low_rating, 1 by k_core; lower .*k_core \(now 5\)"
    with pytest.raises(BadInputError, match=message):
        ingest(raw(rows), settings(min_rating=3.0, k_core=5))
    with pytest.raises(BadInputError, match="the item ids of both files alike"):
        ingest(raw(rows, {"A": "x"}), settings())


MAKE = """
import sys
from pathlib import Path
import numpy as np
import polars as pl
from recalign.config import InteractionsConfig
from recalign.interactions import order
from recalign.interactions.ingest import ingest
from recalign.interactions.rawtables import RAW_INTERACTIONS, RAW_ITEMS, RawTables
from recalign.schemas import INTERACTIONS, ITEMS, USERS, write_table
generator = np.random.default_rng(1)
n = 60_000
table = pl.DataFrame({
    "user_id": generator.integers(0, 900, n).astype(str),
    "item_id": generator.integers(0, 500, n).astype(str),
    "timestamp": generator.integers(0, 99, n),
    "rating": None,
}, schema=RAW_INTERACTIONS)
items = [(str(i), f"T{i}", [{"name": "genre", "value": "War"}]) for i in range(500)]
raw = RawTables(table, pl.DataFrame(items, schema=RAW_ITEMS, orient="row"))
made = ingest(raw, InteractionsConfig())
folder = Path(sys.argv[1])
write_table(made.interactions, folder / "interactions", INTERACTIONS)
write_table(made.items, folder / "items", ITEMS)
write_table(made.users, folder / "users", USERS)
"""


def test_parquet_bytes_are_equal_in_processes_with_other_threads_and_hash_seeds(tmp_path):
    for threads in ("1", "4"):
        (tmp_path / threads).mkdir()
        environment = {"POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", MAKE, str(tmp_path / threads)]
        subprocess.run(command, check=True, env=os.environ | environment, timeout=60)
    for name in ("interactions", "items", "users"):
        one, four = ((tmp_path / threads / name).read_bytes() for threads in ("1", "4"))
        assert one == four, name


def test_a_million_rows_are_ingested_in_seconds_with_the_right_schemas():
    generator = np.random.default_rng(2)
    n = 1_000_000
    table = pl.DataFrame(
        {
            "user_id": pl.Series(generator.integers(0, 6000, n)).cast(pl.String),
            "item_id": pl.Series(generator.zipf(1.5, n) % 4000).cast(pl.String),
            "timestamp": generator.integers(0, 10**9, n),
            "rating": None,
        },
        schema=RAW_INTERACTIONS,
    )
    started = time.process_time()
    tables = ingest(
        RawTables(table, pl.DataFrame(schema=RAW_ITEMS), unknown_items="keep"), settings(k_core=5)
    )
    assert time.process_time() - started < 5
    assert tables.interactions.height + sum(tables.dropped.values()) == n
    for made, schema in (
        (tables.interactions, INTERACTIONS),
        (tables.items, ITEMS),
        (tables.users, USERS),
    ):
        assert check_table(made, schema, "made").columns == list(schema)
        assert made.drop("rating", strict=False).drop_nulls().height == made.height
