import gzip
import json
import tracemalloc
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recalign.config import FilesSource, InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

ROWS = "user_id,item_id,timestamp,rating\nann,x,10,5\nbob,y,20,3.5\nann,y,30,\n"


def read(folder: Path, interactions: str | bytes, name: str = "i.csv", **columns: Any) -> RawTables:
    path = folder / name
    path.write_bytes(interactions if isinstance(interactions, bytes) else interactions.encode())
    source = FilesSource.model_validate({"interactions": str(path), **columns})
    config = InteractionsConfig(source="files", files=source)
    return read_source(config, source_files(config, folder / "cache"))


def read_items(folder: Path, items: str | bytes, name: str, **columns: Any) -> pl.DataFrame:
    path = folder / name
    path.write_bytes(items if isinstance(items, bytes) else items.encode())
    return read(folder, ROWS, items=str(path), **columns).items


def test_csv_rows_keep_their_order_line_numbers_and_gaps_in_ratings(tmp_path):
    table = read(tmp_path, ROWS, rating_column="rating").interactions
    assert table.rows() == [
        ("ann", "x", 10, 5.0, 2),
        ("bob", "y", 20, 3.5, 3),
        ("ann", "y", 30, None, 4),
    ]


def test_csv_tsv_jsonl_parquet_and_gzip_give_the_same_table(tmp_path):
    expected = read(tmp_path, ROWS, rating_column="rating").interactions.drop("row")
    table = pl.read_csv(ROWS.encode())
    table.write_parquet(tmp_path / "made.parquet")
    lines = "\n".join(json.dumps(row) for row in table.to_dicts())
    table.write_csv(tmp_path / "quoted.csv", quote_style="always")
    variants = {
        "quoted.csv": (tmp_path / "quoted.csv").read_bytes(),
        "i.tsv": ROWS.replace(",", "\t").encode(),
        "i.jsonl": lines.encode(),
        "i.jsonl.gz": gzip.compress(lines.encode()),
        "i.csv.gz": gzip.compress(ROWS.encode()),
        "i.parquet": (tmp_path / "made.parquet").read_bytes(),
    }
    for name, content in variants.items():
        got = read(tmp_path, content, name, rating_column="rating").interactions.drop("row")
        assert got.equals(expected), name


def test_brackets_and_stars_in_a_path_are_no_pattern(tmp_path):
    folder = tmp_path / "a[1]*?"
    folder.mkdir()
    pl.read_csv(ROWS.encode()).write_parquet(folder / "made.parquet")
    content = (folder / "made.parquet").read_bytes()
    for name, of_kind in {"i?.parquet": content, "i[2].csv": ROWS.encode()}.items():
        table = read(folder, of_kind, name).interactions
        assert table["item_id"].to_list() == ["x", "y", "y"]


def test_byte_order_mark_blank_lines_windows_line_ends_and_stray_quotes_are_read(tmp_path):
    content = '\ufeffuser_id,item_id,timestamp\r\na,x,1\r\n\r\nb,5" disk,2\r\n\r\n'
    table = read(tmp_path, content).interactions
    assert table.select("user_id", "item_id", "timestamp").rows() == [
        ("a", "x", 1),
        ("b", '5" disk', 2),
    ]
    assert table["row"].to_list() == [2, 4]


@pytest.mark.parametrize(
    ("odd", "outcome"),
    [
        ("a,x,1" + "," * 18, pytest.raises(BadInputError, match="row 20000: has 21 fields")),
        ('a,5" disk,2' + "," * 17, nullcontext()),
    ],
)
def test_an_odd_row_of_a_large_file_is_met_without_a_second_copy_of_it(tmp_path, odd, outcome):
    names = ["user_id", "item_id", "timestamp", *(f"column_{place}" for place in range(17))]
    row = ",".join(["user", "item", "1", *["a cell of text"] * 17])
    content = "\n".join([",".join(names), *[row] * 19_998, odd, row]).encode()
    tracemalloc.start()
    with outcome:
        table = read(tmp_path, content).interactions
        assert table.height == 20_000
        assert table["item_id"][-2] == '5" disk'
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / len(content) < 2.5


def test_an_empty_cell_in_quotes_is_empty(tmp_path):
    content = 'user_id,item_id,timestamp,year\n"","","",""\na,x,"1","1995.0"\na,y,"2",""\n'
    table = read(tmp_path, content).interactions
    assert table.select("user_id", "item_id", "row").rows() == [("a", "x", 3), ("a", "y", 4)]


def test_blank_lines_in_jsonl_are_passed_over_and_numbers_of_lines_stay_right(tmp_path):
    lines = [{"user_id": 1, "item_id": "x", "timestamp": time} for time in (5, 6)]
    content = "\n\n".join(json.dumps(line) for line in lines) + "\n"
    table = read(tmp_path, content, "i.jsonl").interactions
    assert table.rows() == [("1", "x", 5, None, 1), ("1", "x", 6, None, 3)]


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("881250949", 881250949),
        ("881250949.7", 881250949),
        ("881250949123", 881250949),
        ("2014-05-01", int(datetime(2014, 5, 1, tzinfo=UTC).timestamp())),
        ("2014-05-01T12:00:00Z", int(datetime(2014, 5, 1, 12, tzinfo=UTC).timestamp())),
        ("2014-05-01 12:00:00.25+02:00", int(datetime(2014, 5, 1, 10, tzinfo=UTC).timestamp())),
    ],
)
def test_times_are_read_as_seconds_milliseconds_or_iso_8601(tmp_path, cell, seconds):
    table = read(tmp_path, f"user_id,item_id,timestamp\na,x,{cell}\n").interactions
    assert table["timestamp"].to_list() == [seconds]


def test_usual_and_unusual_iso_times_are_all_as_python_reads_them(tmp_path):
    cells = ["2014-05-01", "2014-05-01T12:00:00", "2014-02-28 23:59:59Z", "1931-12-31T00:00:00Z"]
    cells += ["20140501T120000", "2014-05-01T12:00", "2014-05-01T12:00:00.5", "0999-01-01"]
    cells += ["2016-02-29T10:00:00+05:30", "2014-05-01T12:00:00"]
    rows = "".join(f"a,x{n},{cell}\n" for n, cell in enumerate(cells))
    table = read(tmp_path, f"user_id,item_id,timestamp\n{rows}").interactions
    moments = [datetime.fromisoformat(cell) for cell in cells]
    zoned = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments]
    assert table.sort("row")["timestamp"].to_list() == [int(z.timestamp() // 1) for z in zoned]


@pytest.mark.parametrize("cell", ["2014-5-1", "2014-05-01T23:59:60Z", "2014-02-29", "0000-01-01"])
def test_times_that_are_nearly_iso_are_refused_by_row(tmp_path, cell):
    content = f"user_id,item_id,timestamp\na,x,2014-05-01\na,y,{cell}\n"
    with pytest.raises(BadInputError, match=f"row 3, field timestamp: '{cell}' is not a time"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "moments",
    [
        pl.Series([date(2014, 5, 2), date(2014, 5, 1)]),
        pl.Series([datetime(2014, 5, 2), datetime(2014, 5, 1)]),
        pl.Series([datetime(2014, 5, 2, tzinfo=UTC), datetime(2014, 5, 1, tzinfo=UTC)]),
        pl.Series([1398988800, 1398902400]),
        pl.Series([1398988800.0, 1398902400.0]),
    ],
)
def test_parquet_dates_and_numbers_are_times_and_whole_floats_are_ids(tmp_path, moments):
    table = pl.DataFrame({"user_id": [7.0, 8.0], "item_id": [1, 2], "timestamp": moments})
    table.write_parquet(tmp_path / "made.parquet")
    got = read(tmp_path, (tmp_path / "made.parquet").read_bytes(), "i.parquet").interactions
    assert got["timestamp"].to_list() == [1398988800, 1398902400]
    assert got["user_id"].to_list() == ["7", "8"]


def test_events_of_one_second_stand_in_the_order_of_their_milliseconds(tmp_path):
    content = "user_id,item_id,timestamp\na,late,1400000000900\na,early,1400000000100\n"
    table = read(tmp_path, content).interactions
    assert table["item_id"].to_list() == ["early", "late"]
    assert table["timestamp"].to_list() == [1400000000, 1400000000]


def test_without_a_timestamp_column_the_file_order_is_the_time(tmp_path):
    table = read(tmp_path, "user_id,item_id\na,x\nb,y\na,z\n", timestamp_column="").interactions
    assert table["timestamp"].is_sorted()
    assert table["timestamp"].n_unique() == 3


def test_nested_lists_and_bars_become_one_attribute_per_value(tmp_path):
    line = {"item_id": "x", "title": "A &amp; B", "categories": [["Beauty", "Hair"], ["Beauty"]]}
    items = read_items(tmp_path, json.dumps(line), "t.jsonl", attribute_columns=["categories"])
    expected = [{"name": "category", "value": "Beauty"}, {"name": "category", "value": "Hair"}]
    assert items.to_dicts() == [{"item_id": "x", "title": "A & B", "attributes": expected}]
    content = "item_id,title,genres,mood\nx,T,War|Drama,\n"
    items = read_items(tmp_path, content, "t.csv", attribute_columns=["genres", "mood"])
    expected = [{"name": "genre", "value": "War"}, {"name": "genre", "value": "Drama"}]
    assert items["attributes"].to_list() == [expected]


def test_gaps_that_a_data_frame_writes_as_nan_are_no_attribute_and_no_title(tmp_path):
    table = pl.DataFrame({"item_id": ["x", "y", "z"], "title": [7.5, float("nan"), float("inf")],
                          "year": [1999.0, float("nan"), None]})  # fmt: skip
    table.write_parquet(tmp_path / "made.parquet")
    content = (tmp_path / "made.parquet").read_bytes()
    items = read_items(tmp_path, content, "p.parquet", attribute_columns=["year"])
    assert items["title"].to_list() == ["7.5", None, None]
    years = [[one["value"] for one in own] for own in items["attributes"].to_list()]
    assert years == [["1999"], [], []]


def test_parquet_lists_are_attributes_and_empty_titles_are_null(tmp_path):
    table = pl.DataFrame({"item_id": [1, 2], "name": ["T", " "], "tags": [["a", "b"], None]})
    table.write_parquet(tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    columns = {"title_column": "name", "attribute_columns": ["tags"]}
    items = read_items(tmp_path, content, "t.parquet", **columns)
    assert items["item_id"].to_list() == ["1", "2"]
    assert items["title"].to_list() == ["T", None]
    tags = [[a["value"] for a in facets] for facets in items["attributes"].to_list()]
    assert tags == [["a", "b"], []]


HEAD = "user_id,item_id,timestamp,rating\n"
BAD_INTERACTIONS: dict[str, tuple[str, str | bytes, str]] = {
    "empty file": ("i.csv", "", "i.csv: is empty"),
    "blank file": ("i.csv", " \n\n", "i.csv: is empty"),
    "header only": ("i.csv", HEAD, "i.csv: has columns but no row"),
    "missing column": ("i.csv", "user_id,thing,timestamp,rating\na,x,1,1\n", "no column item_id"),
    "rating NaN": ("i.csv", HEAD + "a,x,1,2\na,y,2,NaN\n", "row 3, field rating: 'NaN'"),
    "rating text": ("i.csv", HEAD + "a,x,1,good\n", "row 2, field rating: 'good'"),
    "rating infinite": ("i.csv", HEAD + "a,x,1,inf\n", "row 2, field rating: 'inf'"),
    "no time": ("i.csv", HEAD + "a,x,,2\n", "row 2, field timestamp: is empty"),
    "time NaN": ("i.csv", HEAD + "a,x,nan,2\n", "row 2, field timestamp: 'nan'"),
    "time text": ("i.csv", HEAD + "a,x,1,2\na,x,soon,2\n", "row 3, field timestamp: 'soon'"),
    "no date": ("i.csv", HEAD + "a,x,2014-02-31,2\n", "row 2, field timestamp: '2014-02-31'"),
    "two units": (
        "i.csv", HEAD + "a,x,1400000000,2\na,y,1400000000000,2\n", "row 3, field timestamp"
    ),
    "empty id": ("i.csv", HEAD + "a,x,1,2\n,x,1,2\n", "row 3, field user_id: is empty"),
    "cut row": ("i.csv", HEAD + "a,x,1,2\na,x", "row 3: has 2 fields, the header has 4"),
    "ragged row": ("i.csv", HEAD + "a,x,1,2\na,x,1,2,9\n", "row 3: has 5 fields, the header has 4"),
    "latin 1": ("i.csv", HEAD.encode() + b"a,x,1,2\na,caf\xe9,1,2\n", "row 3: byte 6 is not UTF-8"),
    "line breaks": ("i.csv", HEAD + 'a,"x\n\ny",1,2\na,x,no,2\n', "row 5, field timestamp: 'no'"),
    "cut gzip": ("i.csv.gz", gzip.compress(HEAD.encode() * 99)[:-20], "damaged or cut short"),
    "no gzip": ("i.csv.gz", HEAD, "damaged or cut short"),
    "cut parquet": ("i.parquet", b"PAR1xxxxxxxxxxxxx", "is damaged, cut short, or no Parquet"),
    "broken JSON": ("i.jsonl", '{"user_id": 1}\n\n{"user_id": \n', "row 3: the line is broken"),
    "JSON list": ("i.jsonl", '["a", "x", 1, 2]\n', "row 1: is not an object"),
    "JSON NaN": ("i.jsonl", '{"rating": NaN}\n', "row 1: the line is broken"),
    "no JSON field": ("i.jsonl", '{"user_id": 1, "item_id": 2, "rating": 1}\n', "field timestamp"),
    "JSON gap": (
        "i.jsonl",
        '{"user_id": 1, "item_id": 2, "timestamp": 3, "rating": 4}\n{"x": 1}\n',
        "row 2, field user_id: is empty",
    ),
    "unknown kind": ("i.xlsx", HEAD, "unknown kind of file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_INTERACTIONS)
def test_bad_interactions_are_refused_by_file_row_and_field(tmp_path, kind):
    name, content, message = BAD_INTERACTIONS[kind]
    with pytest.raises(BadInputError) as refusal:
        read(tmp_path, content, name, rating_column="rating")
    assert str(tmp_path / name) in str(refusal.value)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        (None, "is empty; every row needs an id"),
        (float("nan"), "is empty; every row needs an id"),
        (1.5, "'1.5' is not an id"),
    ],
)
def test_a_gap_in_ids_that_became_floats_is_told_as_a_gap(tmp_path, gap, told):
    ids = pl.Series("item_id", [7.0, gap, 8.0])
    table = pl.DataFrame([pl.Series("user_id", ["a", "b", "c"]), ids])
    table.with_columns(timestamp=ids.cum_count()).write_parquet(tmp_path / "made.parquet")
    content = (tmp_path / "made.parquet").read_bytes()
    with pytest.raises(BadInputError) as refusal:
        read(tmp_path, content, "i.parquet")
    assert f"row 2, field item_id: {told}" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "item_id,title\nx,A\ny,B\nx,C\n", "row 4, field item_id: 'x' is listed twice"),
        ("t.jsonl", '{"item_id": "x", "title": "A"}\n{"item_id": "x"}\n', "row 2, field item_id"),
        ("t.csv", "item_id\nx\n", "has no column title"),
        ("t.jsonl", '{"item_id": "x"}\n', "no row has the field title"),
        ("t.csv", b"item_id,title\nx,caf\xe9\n", "row 2: byte 6 is not UTF-8"),
        ("t.jsonl", b'{"item_id": "x",\n"title": "caf\xe9"}\n', "row 1: the line is broken"),
        ("t.jsonl", b'{"item_id": "x", "title": "caf\xe9"}\n', "row 1: byte 31 is not UTF-8"),
        ("t.jsonl", '{"title": "A"}\n', "row 1, field item_id: is empty"),
        ("t.jsonl", "\n", "t.jsonl: is empty"),
    ],
)
def test_bad_items_are_refused_by_file_row_and_field(tmp_path, name, content, message):
    with pytest.raises(BadInputError) as refusal:
        read_items(tmp_path, content, name)
    assert str(tmp_path / name) in str(refusal.value)
    assert message in str(refusal.value)


def test_files_that_do_not_exist_are_refused_by_their_setting(tmp_path):
    for files, message in (
        (FilesSource(), "interactions.files.interactions is empty"),
        (
            FilesSource(interactions=str(tmp_path / "no.csv")),
            r"no such file \(interactions.files.in",
        ),
        (FilesSource(interactions=str(tmp_path)), "is a folder, not a file"),
        (
            FilesSource(interactions="log.csv", attribute_columns=["genre"]),
            "name that file in interactions.files.items",
        ),
    ):
        with pytest.raises(BadInputError, match=message):
            source_files(InteractionsConfig(source="files", files=files), tmp_path)
