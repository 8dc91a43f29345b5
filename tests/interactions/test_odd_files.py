"""What spreadsheets, data frames and damaged archives make of files."""

import bz2
import gzip
import json
import lzma
import struct
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recalign.config import FilesSource, InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

HEAD = "user_id,item_id,timestamp,rating\n"
PLAIN = HEAD + "ann,x,1400000000,4.5\nbob,y,1400000060,3\n"
OURS = PLAIN.replace("rating\n", "rating,row,__row__,0\n").replace("5\n", "5,8,9,7\n")
OURS = OURS.replace("3\n", "3,8,9,7\n")
EXPECTED = [("ann", "x", 1400000000, 4.5), ("bob", "y", 1400000060, 3.0)]
COLUMNS = ["user_id", "item_id", "timestamp", "rating"]


def read(path: Path, **columns: Any) -> RawTables:
    source = FilesSource.model_validate({"interactions": str(path), **columns})
    config = InteractionsConfig(source="files", files=source)
    return read_source(config, source_files(config, path.parent))


def rows_of(folder: Path, content: bytes | str, name: str = "i.csv") -> list[tuple[Any, ...]]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(folder / name, rating_column="rating").interactions.select(COLUMNS).rows()


def times_of(folder: Path, cells: list[Any]) -> list[int]:
    lines = [f'u,i{place},"{cell}"\n' for place, cell in enumerate(cells)]
    (folder / "i.csv").write_text("user_id,item_id,timestamp\n" + "".join(lines))
    return read(folder / "i.csv").interactions.sort("row")["timestamp"].to_list()


def items_of(folder: Path, name: str, **columns: Any) -> list[dict[str, Any]]:
    (folder / "i.csv").write_text(PLAIN)
    return read(folder / "i.csv", items=str(folder / name), **columns).items.to_dicts()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.csv", PLAIN.replace(",", ";").replace("4.5", "4,5")),
        ("i.csv", PLAIN.replace(",", "\t")),
        ("i.csv", PLAIN.replace(",", "|")),
        ("i.tsv", PLAIN),
        ("i.csv", PLAIN.replace("4.5", '"4,5"')),
        ("i.csv", PLAIN.replace(",item_id", " , item_id ")),
        ("i.csv", PLAIN.replace("\n", "\r")),
        ("i.csv", PLAIN.replace("\n", "\r\n").encode("utf-8-sig")),
        ("i.csv", PLAIN.encode("utf-16")),
        ("i.CSV.GZ", gzip.compress(PLAIN.encode("utf-16"), mtime=0)),
        ("i.csv", gzip.compress(PLAIN.encode(), mtime=0)),
        ("i.csv", OURS),
    ],
)
def test_what_a_spreadsheet_or_an_archive_makes_of_a_table_is_the_same_table(
    tmp_path, name, content
):
    assert rows_of(tmp_path, content, name) == EXPECTED


def test_a_comma_that_may_part_thousands_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="row 2, field rating: '1,234' is not a number"):
        rows_of(tmp_path, PLAIN.replace("4.5", '"1,234"').replace(",3\n", ',"5,678"\n'))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN.encode("utf-16-le"), "is UTF-16 without a byte order mark; save it as UTF-8"),
        (PLAIN.replace("rating", "rating,user_id"), "has more than one column user_id"),
        (PLAIN.replace("item_id", "Item"), "no column item_id; its columns are user_id, Item,"),
        (HEAD + "a,x,1,1e39\n", "row 2, field rating: '1e39' is not a number"),
    ],
)
def test_what_cannot_be_understood_is_named(tmp_path, content, message):
    with pytest.raises(BadInputError, match=message):
        rows_of(tmp_path, content)


EXCEL = datetime(1899, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cells", "moments"),
    [
        (["41760", "41760.5"], [EXCEL + timedelta(days=41760), EXCEL + timedelta(days=41760.5)]),
        (["20140501", "20140502"], [datetime(2014, 5, day, tzinfo=UTC) for day in (1, 2)]),
        (["875000000000123", "875000001000000"], [875000000, 875000001]),
        (["875000000000", "875000001000"], [875000000, 875000001]),
        (["875000000000000123", "875000001000000000"], [875000000, 875000001]),
        (["1400000000,5", "1400000001,5"], [1400000000, 1400000001]),
        (["20149901", "20149902"], [20149901, 20149902]),
        (["7", "8"], [7, 8]),
    ],
)
def test_the_size_of_all_times_tells_their_unit(tmp_path, cells, moments):
    expected = [int(m.timestamp()) if isinstance(m, datetime) else m for m in moments]
    assert times_of(tmp_path, cells) == expected


def test_microseconds_of_one_second_put_rows_in_order(tmp_path):
    lines = ["u,late,1400000000000009\n", "u,early,1400000000000004\n"]
    (tmp_path / "i.csv").write_text("user_id,item_id,timestamp\n" + "".join(lines))
    assert read(tmp_path / "i.csv").interactions["item_id"].to_list() == ["early", "late"]


def test_times_in_two_units_and_times_that_are_all_one_are_refused(tmp_path):
    message = "row 3, field timestamp: '1400000000000000' is in microseconds, other rows are in sec"
    with pytest.raises(BadInputError, match=message):
        times_of(tmp_path, ["1400000000", "1400000000000000"])
    with pytest.raises(BadInputError, match="every row has the same timestamp, so no order is kn"):
        times_of(tmp_path, ["0", "0", "0"])


def parquet(folder: Path, name: str = "i.parquet", **columns: Any) -> Path:
    base = {"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1400000000, 1400000300]}
    pl.DataFrame(base | columns).write_parquet(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": [2.0**53, 1.0]}, "field user_id: '9007199254740992.0' is a float too large"),
        ({"user_id": [timedelta(1)] * 2}, "field user_id: is of type Duration"),
        ({"user_id": [["a"], ["b"]]}, "field user_id: is of type List"),
        ({"timestamp": [[1], [2]]}, "row 1, field timestamp"),
        ({"rating": [[1], [2]]}, "row 1, field rating"),
        ({"rating": [1e39, 2.0]}, "row 1, field rating: '1e.39' is not a number"),
        ({"timestamp": pl.Series([1.4e9, 1.5e9], dtype=pl.Float32)}, "is of type Float32"),
    ],
)
def test_columns_of_a_type_that_cannot_serve_are_refused(tmp_path, columns, message):
    path = parquet(tmp_path, **columns)
    with pytest.raises(BadInputError, match=message):
        read(path, rating_column="rating" if "rating" in columns else "")


def test_categories_and_decimals_are_read_as_their_text_and_number(tmp_path):
    path = parquet(
        tmp_path,
        user_id=pl.Series(["1.00", "2.00"]).cast(pl.Decimal(10, 2)),
        timestamp=pl.Series(["1400000000", "1400000300"], dtype=pl.Categorical),
        row=[9, 9],
    )
    table = read(path).interactions
    assert table["user_id"].to_list() == ["1", "2"]
    assert table["timestamp"].to_list() == [1400000000, 1400000300]


def test_whole_numbers_that_a_data_frame_wrote_as_floats_are_whole_again(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title,year\n12.0,A,1996.0\n7.0,B,\n")
    (tmp_path / "items.jsonl").write_text('{"item_id": 12.0, "title": "A", "year": 1996.0}\n')
    for name in ("items.csv", "items.jsonl"):
        first = items_of(tmp_path, name, attribute_columns=["year"])[0]
        assert first["item_id"] == "12"
        assert first["attributes"] == [{"name": "year", "value": "1996"}]
    (tmp_path / "items.csv").write_text("item_id,title\n1.0,A\n1.1,B\n")
    assert [item["item_id"] for item in items_of(tmp_path, "items.csv")] == ["1.0", "1.1"]


def test_a_title_column_may_be_left_out_and_names_of_columns_may_not_be_empty(tmp_path):
    (tmp_path / "items.csv").write_text("item_id\nx\ny\n")
    assert [item["title"] for item in items_of(tmp_path, "items.csv", title_column="")] == [
        None
    ] * 2
    with pytest.raises(ValueError, match="attribute_columns"):
        items_of(tmp_path, "items.csv", attribute_columns=[""])


def test_titles_that_are_bytes_are_refused(tmp_path):
    pl.DataFrame({"item_id": ["x"], "title": [b"\xff"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(BadInputError, match="field title: is of type Binary"):
        items_of(tmp_path, "items.parquet")


IDS = [
    "1.0",
    "1",
    "true",
    '["a", 1.0]',
    "1e3",
    "1e16",
    '"é"',
    '{"a": null}',
    "18446744073709551617",
]


@pytest.mark.parametrize("user", IDS)
def test_jsonl_reads_alike_line_by_line_and_as_a_block_interactions_and_items(tmp_path, user):
    fields = f'"item_id": {user}, "title": "T"'
    (tmp_path / "items.jsonl").write_text(f"{{{fields}}}\n")
    line = f'{{"user_id": {user}, "timestamp": 5, {fields}}}\n'
    odd = '{"user_id": "\\u0000", "item_id": 1, "timestamp": 6}\n'
    found = set()
    for name, more in (("block", ""), ("blank", "\n" + line.replace("5", "6")), ("lines", odd)):
        (tmp_path / f"{name}.jsonl").write_text(line + more)
        made = read(tmp_path / f"{name}.jsonl", items=str(tmp_path / "items.jsonl"))
        found |= {made.interactions["user_id"][0], made.items["item_id"][0]}
    assert len(found) == 1


def test_of_a_name_that_a_line_has_twice_the_first_counts_with_and_without_a_blank_line(tmp_path):
    line = '{"user_id": "a", "user_id": "b", "item_id": "x", "timestamp": 1}\n'
    for odd in ("", "\n", '{"user_id": "\\u0000", "item_id": "y", "timestamp": 2}\n'):
        (tmp_path / "i.jsonl").write_bytes(line.encode("utf-8-sig") + odd.encode())
        assert read(tmp_path / "i.jsonl").interactions["user_id"][0] == "a"


def test_half_a_surrogate_pair_is_refused_by_row_and_a_whole_one_is_read(tmp_path):
    line = '{"user_id": %s, "item_id": "x", "timestamp": 1}\n'
    (tmp_path / "i.jsonl").write_text(line % '"\\ud83d\\ude00"')
    assert read(tmp_path / "i.jsonl").interactions["user_id"][0] == "\N{GRINNING FACE}"
    for half in ("\\ud83d", "a\\ude00", "\\ud83dz"):
        (tmp_path / "i.jsonl").write_text(line % '"a"' + line % f'"{half}"')
        with pytest.raises(BadInputError, match="row 2, field user_id: holds half a surrogate"):
            read(tmp_path / "i.jsonl")


def zipped(path: Path, method: int) -> bytearray:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("ml-100k/u.data", "1\t1\t5\t874965758\n" * 500)
        archive.writestr("ml-100k/u.item", "1|T|||" + "|0" * 19)
    return bytearray(path.read_bytes())


def in_headers(content: bytearray, local: int, central: int, value: int) -> None:
    """Write `value` into one byte of every member's headers."""
    for mark, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + place] = value


@pytest.mark.parametrize("damage", ["encrypted", "unknown method", "crc", "cut", "bz2", "lzma"])
def test_zips_that_cannot_be_unpacked_are_refused_by_name(tmp_path, damage):
    methods = {"bz2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    content = zipped(tmp_path / "ml-100k.zip", methods.get(damage, zipfile.ZIP_DEFLATED))
    match damage:
        case "encrypted":
            in_headers(content, 6, 8, 1)
        case "unknown method":
            in_headers(content, 8, 10, 98)
        case "crc":
            in_headers(content, 14, 16, 7)
        case "cut":
            del content[-30:]
        case "bz2" | "lzma":
            content[60:64] = struct.pack("I", 0xFFFEFDFC)
    (tmp_path / "ml-100k.zip").write_bytes(content)
    config = InteractionsConfig(source="ml-100k", raw_folder=str(tmp_path))
    with pytest.raises(BadInputError, match=r"ml-100k.zip: zip file is damaged or cut short"):
        read_source(config, source_files(config, tmp_path))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, json.dumps])
def test_what_is_no_table_at_all_is_refused(tmp_path, pack):
    packed = pack(PLAIN if pack is json.dumps else PLAIN.encode())
    for name in ("i.csv", "i.jsonl", "i.parquet", "i.csv.gz"):
        with pytest.raises(BadInputError, match=name):
            rows_of(tmp_path, packed, name)
