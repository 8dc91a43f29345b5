"""Tables in shards: what was made before a failure is kept, whatever the order."""

import polars as pl
import pytest

from recalign.artifacts.shards import tables_in_shards

SCHEMA = {"n": pl.Int64}


def maker(order, asked, fail_at=None):
    def compute(missing):
        asked.append(missing)
        for number in order(missing):
            if number == fail_at:
                raise RuntimeError("a worker is gone")
            yield number, pl.DataFrame({"n": [number]})

    return compute


def test_a_failure_costs_only_what_was_not_yet_given(tmp_path):
    asked: list[list[int]] = []
    keys = ["a", "b", "c", "d"]
    with pytest.raises(RuntimeError):
        tables_in_shards(keys, maker(reversed, asked, fail_at=1), tmp_path, SCHEMA)
    tables = tables_in_shards(keys, maker(iter, asked), tmp_path, SCHEMA)
    assert asked == [[0, 1, 2, 3], [0, 1]]
    assert [table["n"].to_list() for table in tables] == [[0], [1], [2], [3]]
    tables_in_shards(["a", "b", "x", "d"], maker(iter, asked), tmp_path, SCHEMA)
    assert asked[2:] == [[2]]


def test_brackets_and_stars_in_a_path_are_no_pattern(tmp_path):
    asked: list[list[int]] = []
    for _ in range(2):
        tables = tables_in_shards(["a"], maker(iter, asked), tmp_path / "a[1]*?", SCHEMA)
        assert [table["n"].to_list() for table in tables] == [[0]]
    assert asked == [[0]]
