"""Newer interactions laid over a run's: new users, unknown items, order, repeats, bad files."""

from dataclasses import replace

import polars as pl
import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.newer import RunTables, extend, read_newer
from recalign.interactions.userlist import read_user_ids
from recalign.schemas import ATTRIBUTES, INTERACTIONS, ITEMS, USERS

FILES = InteractionsConfig(source="files")
NOBODY, NOTHING = pl.DataFrame(schema=USERS), pl.DataFrame(schema=ITEMS)


@pytest.fixture
def known():
    rows = [(0, 1, 0, 10, None), (0, 2, 1, 20, None), (1, 3, 0, 15, None)]
    items = {"item_index": [1, 2, 3], "item_id": ["x", "y", "z"], "title": ["X", "Y", "Z"],
             "text": ["X", "Y", "Z"]}  # fmt: skip
    table = pl.DataFrame(items, schema={k: v for k, v in ITEMS.items() if k != "attributes"})
    return RunTables(
        pl.DataFrame(rows, schema=INTERACTIONS, orient="row"),
        table.with_columns(pl.lit([], ATTRIBUTES).alias("attributes")),
        pl.DataFrame({"user_index": [0, 1], "user_id": ["ann", "bob"]}, schema=USERS),
    )


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def histories(found):
    """user -> item indices in order of time."""
    assert found.interactions.select("user_index", "position").is_sorted(["user_index", "position"])
    by_user = found.interactions.group_by("user_index", maintain_order=True).agg("item_index")
    return dict(by_user.iter_rows())


def test_newer_rows_stand_where_their_time_puts_them_and_new_users_come_last(known, tmp_path):
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", "cay,y,50", "ann,z,20",
                 "bob,x,5", "cay,x,40", "abe,z,60")  # fmt: skip
    found = extend(known, read_newer(path, FILES, known), FILES)
    assert found.users.rows() == [(0, "ann"), (1, "bob"), (2, "cay"), (3, "abe")]
    assert histories(found) == {0: [1, 2, 3], 1: [1, 3], 2: [1, 2], 3: [3]}
    assert found.interactions["position"].to_list() == [0, 1, 2, 0, 1, 0, 1, 0]
    assert not found.dropped


def test_unknown_items_are_counted_and_named_and_who_took_nothing_else_is_too(known, tmp_path):
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", "ann,new,50", "dan,new,51",
                 "dan,other,52", "eve,new,53", "eve,x,54")  # fmt: skip
    found = extend(known, read_newer(path, FILES, known), FILES)
    assert found.dropped == {"unknown_item": 4}
    assert found.unknown_items.rows() == [("new", 3), ("other", 1)]
    assert found.itemless_users["user_id"].to_list() == ["dan"]
    assert found.users["user_id"].to_list() == ["ann", "bob", "eve"]


@pytest.mark.parametrize(("rule", "history"), [("first", [1, 2]), ("last", [2, 1]),
                                               ("keep", [1, 2, 1])])  # fmt: skip
def test_an_item_taken_again_follows_the_runs_own_rule(known, tmp_path, rule, history):
    config = InteractionsConfig(source="files", duplicates=rule)
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", "ann,x,99")
    found = extend(known, read_newer(path, config, known), config)
    assert histories(found)[0] == history
    assert found.dropped == ({} if rule == "keep" else {"duplicate": 1})


def test_the_whole_history_once_more_changes_nothing(known, tmp_path):
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", "ann,x,10", "ann,y,20",
                 "bob,z,15")  # fmt: skip
    found = extend(known, read_newer(path, FILES, known), FILES)
    assert found.interactions.equals(known.interactions)
    assert found.dropped == {"duplicate": 3}


def test_where_repeats_are_kept_only_what_is_known_as_often_is_left_out(known, tmp_path):
    config = InteractionsConfig(source="files", duplicates="keep")
    rows = [(0, 1, 0, 10, None), (0, 1, 1, 10, None), (0, 2, 2, 20, None), (1, 3, 0, 15, None)]
    twice = pl.DataFrame(rows, schema=INTERACTIONS, orient="row")
    known = replace(known, interactions=twice)
    whole = ["user_id,item_id,timestamp", "ann,x,10", "ann,x,10", "ann,y,20", "bob,z,15"]
    again = extend(known, read_newer(write(tmp_path / "n.csv", *whole), config, known), config)
    assert again.interactions.equals(twice)
    assert again.dropped == {"duplicate": 4}
    # A third time at once, an item of before at another time, and twice a new one at once.
    more = write(tmp_path / "m.csv", *whole, "ann,x,10", "ann,y,30", "bob,x,40", "bob,x,40")
    found = extend(known, read_newer(more, config, known), config)
    assert histories(found) == {0: [1, 1, 1, 2, 2], 1: [3, 1, 1]}
    assert found.dropped == {"duplicate": 4}


def test_ratings_below_the_runs_own_bar_are_left_out(known, tmp_path):
    config = InteractionsConfig(source="ml-1m", min_rating=4)
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp,rating", "ann,z,50,3", "bob,x,51,5",
                 "bob,y,52,")  # fmt: skip
    found = extend(known, read_newer(path, config, known), config)
    assert found.dropped == {"low_rating": 1, "no_rating": 1}
    assert histories(found) == {0: [1, 2], 1: [3, 1]}


def test_without_times_newer_rows_follow_all_that_is_known(known, tmp_path):
    config = InteractionsConfig(source="files", files={"timestamp_column": ""})
    path = write(tmp_path / "n.csv", "user_id,item_id", "bob,y", "bob,x", "ann,z")
    found = extend(known, read_newer(path, config, known), config)
    assert histories(found) == {0: [1, 2, 3], 1: [3, 2, 1]}


def counted(first, last, step=1):
    """A run's tables whose times are these numbers."""
    times = pl.Series("timestamp", range(first, last + 1, step), dtype=pl.Int64)
    rows = [(0, 1, n, time, None) for n, time in enumerate(times)]
    return RunTables(pl.DataFrame(rows, schema=INTERACTIONS, orient="row"), NOTHING, NOBODY)


@pytest.mark.parametrize(
    ("last", "cells"),
    [(21990, [22001, 22003]), (21990, ["22001"]), (1_000_000, [30_000, 1_000_001]),
     (1_000_000, [30_000]), (20_140_500, [20_140_501, 20_140_502])],
)  # fmt: skip
def test_where_the_run_counts_events_no_number_of_a_newer_file_is_a_date(tmp_path, last, cells):
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", *(f"ann,x,{n}" for n in cells))
    found = read_newer(path, FILES, counted(last % 1000, last, 1000))
    assert found["timestamp"].to_list() == list(map(int, cells))


@pytest.mark.parametrize("cell", ["41760", "20140501", "2014-05-01", "1398902400", "1398902400000"])
def test_where_the_run_has_times_a_newer_file_may_write_them_another_way(tmp_path, cell):
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", f"ann,x,{cell}")
    found = read_newer(path, FILES, counted(1_390_000_000, 1_398_000_000, 1_000_000))
    assert found["timestamp"].to_list() == [1_398_902_400]


@pytest.mark.parametrize(
    ("cells", "read"),
    [([41760, 3], "41760"), ([20140501, 20140532], "20140532"), ([22001], "-308275200")],
)
def test_a_newer_file_that_lies_wholly_before_the_run_is_refused(tmp_path, cells, read):
    config = InteractionsConfig(source="files", files={"timestamp_column": "at"})
    path = write(tmp_path / "n.csv", "user_id,item_id,at", *(f"ann,x,{n}" for n in cells))
    with pytest.raises(BadInputError) as refusal:
        read_newer(path, config, counted(1_390_000_000, 1_398_000_000, 1_000_000))
    told = f"{path}, field at: the latest time is read as {read} seconds since 1970, before all"
    assert told in str(refusal.value)
    assert "(from 1390000000 on); write times in the unit of the run's own file" in str(
        refusal.value
    )


def test_a_late_row_that_is_as_old_as_the_run_is_read(tmp_path):
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", "ann,x,1390000000")
    known = counted(1_390_000_000, 1_398_000_000, 1_000_000)
    assert read_newer(path, FILES, known)["timestamp"].to_list() == [1_390_000_000]


def test_the_columns_are_those_of_the_runs_own_files(known, tmp_path):
    config = InteractionsConfig(source="files", files={"user_column": "who", "item_column": "what"})
    good = write(tmp_path / "good.csv", "who,what,timestamp", "ann,x,10")
    assert read_newer(good, config, known)["item_id"].to_list() == ["x"]
    bad = write(tmp_path / "bad.csv", "user_id,item_id,timestamp", "ann,x,1")
    with pytest.raises(BadInputError, match=r"bad.csv: has no column who, what; .* own") as told:
        read_newer(bad, config, known)
    assert "interactions.files" not in str(told.value)


def test_user_ids_come_from_lines_or_from_a_column(tmp_path):
    lines = write(tmp_path / "u.txt", "ann", "", " 2 ", "ann")
    table = write(tmp_path / "u.csv", "user_id,age", "ann,3", "2,4")
    assert read_user_ids(lines).to_list() == read_user_ids(table).to_list() == ["ann", "2"]


def test_ids_that_look_like_decimals_stay_what_the_run_calls_them(known, tmp_path):
    """A file of pandas with gaps writes 12 as 12.0; versions are written so, too."""
    path = write(tmp_path / "n.csv", "user_id,item_id,timestamp", "1.0,2.0,50")
    table = write(tmp_path / "u.csv", "user_id", "1.0")
    assert read_newer(path, FILES, known)["user_id", "item_id"].row(0) == ("1", "2")
    named = replace(
        known,
        users=known.users.with_columns(user_id=pl.Series(["1.0", "1.1"])),
        items=known.items.with_columns(item_id=pl.Series(["2.1", "3", "2.0"])),
    )
    found = extend(named, read_newer(path, FILES, named), FILES)
    assert histories(found) == {0: [1, 2, 3], 1: [3]}
    assert not found.dropped
    asked = [read_user_ids(table), read_user_ids(table, named.users["user_id"])]
    assert [one.to_list() for one in asked] == [["1"], ["1.0"]]


def test_ids_of_a_wrong_type_are_refused_in_an_empty_table_too(known, tmp_path):
    wrong = pl.Series("user_id", [], pl.List(pl.String))
    pl.DataFrame(
        [wrong, pl.Series("item_id", [], pl.String), pl.Series("timestamp", [], pl.Int64)]
    ).write_parquet(tmp_path / "n.parquet")
    with pytest.raises(BadInputError, match=r"field user_id: is of type List\(String\)"):
        read_newer(tmp_path / "n.parquet", FILES, known)


@pytest.mark.parametrize("name", ["u.txt", "U.TXT", "vips"])
def test_a_list_of_users_may_have_a_byte_order_mark_and_no_ending(tmp_path, name):
    (tmp_path / name).write_bytes("ann\r\nzoë\u2028x\r\n".encode("utf-8-sig"))
    assert read_user_ids(tmp_path / name).to_list() == ["ann", "zoë\u2028x"]


@pytest.mark.parametrize("name", ["n.csv", "n.parquet"])
def test_a_newer_file_with_a_header_alone_changes_nothing(known, tmp_path, name):
    empty = pl.DataFrame(schema=dict.fromkeys(["user_id", "item_id", "timestamp"], pl.String))
    (empty.write_parquet if name.endswith("parquet") else empty.write_csv)(tmp_path / name)
    found = extend(known, read_newer(tmp_path / name, FILES, known), FILES)
    assert found.interactions.equals(known.interactions)
    assert (found.users.equals(known.users), found.dropped) == (True, {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("u.txt", "\n\n", "holds no user id"),
        ("u.csv", "id\nann\n", "has no column user_id; its columns are id; name the column"),
        ("u.xml", "<a/>", "unknown kind of file"),
    ],
)
def test_a_bad_list_of_users_is_told_in_a_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_user_ids(tmp_path / name)
    with pytest.raises(BadInputError, match="no such file of users"):
        read_user_ids(tmp_path / "nowhere.txt")
