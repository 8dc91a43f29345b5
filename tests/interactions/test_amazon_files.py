import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from recalign.config import AmazonSource, InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.ingest import Ingested, ingest
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

NAMES = {
    "2014": ("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"),
    "2018": ("Beauty_5.json.gz", "meta_Beauty.json.gz"),
    "2023": ("Beauty.jsonl.gz", "meta_Beauty.jsonl.gz"),
}


def review(user: str, item: str, time: int) -> dict[str, object]:
    return {"reviewerID": user, "asin": item, "overall": 4.0, "unixReviewTime": time}


def settings(folder: Path, year: str) -> InteractionsConfig:
    amazon = AmazonSource.model_validate({"year": year, "category": "Beauty"})
    return InteractionsConfig(source="amazon", raw_folder=str(folder), amazon=amazon, k_core=0)


def write(folder: Path, year: str, reviews: Sequence[object], meta: str | Sequence[object]) -> None:
    text = meta if isinstance(meta, str) else "\n".join(json.dumps(line) for line in meta)
    lines = "\n".join(json.dumps(line) for line in reviews)
    for name, content in zip(NAMES[year], (lines, text), strict=True):
        (folder / name).write_bytes(gzip.compress(content.encode()))


def read(folder: Path, year: str) -> tuple[RawTables, Ingested]:
    config = settings(folder, year)
    raw = read_source(config, source_files(config, folder / "never written"))
    return raw, ingest(raw, config)


def facets(tables: Ingested, item: str) -> list[tuple[str, str]]:
    row = tables.items.row(by_predicate=pl.col("item_id") == item, named=True)
    return [(a["name"], a["value"]) for a in row["attributes"]]


def test_2014_reads_python_literals_and_keeps_items_without_metadata(tmp_path):
    reviews = [review("u", "B1", 30), review("u", "B2", 10), review("v", "B1", 20)]
    meta = (
        "{'asin': 'B1', 'title': \"Burt's Balm &amp; Oil\", 'brand': 'Burt', 'price': 3.5, "
        "'categories': [['Beauty', 'Skin Care'], ['Health', 'Skin Care']]}\n"
        "{'asin': 'B9', 'title': 'nobody reviewed it', broken, never parsed}\n"
    )
    write(tmp_path, "2014", reviews, meta)
    raw, tables = read(tmp_path, "2014")
    assert raw.interactions["rating"].to_list() == [4.0, 4.0, 4.0]
    assert tables.items["title"].to_list() == ["Burt's Balm & Oil", "B2"]
    assert facets(tables, "B1") == [
        ("brand", "Burt"),
        ("category", "Skin Care"),
        ("category", "Health"),
    ]
    assert tables.noted == {"items_without_metadata": 1}
    assert tables.dropped == {}
    assert tables.interactions["item_index"].to_list() == [2, 1, 1]


def test_2014_metadata_are_never_evaluated(tmp_path):
    trap = tmp_path / "trap"
    write(
        tmp_path, "2014", [review("u", "B1", 1)], f"{{'asin': 'B1', 'x': open({str(trap)!r}, 'w')}}"
    )
    with pytest.raises(BadInputError, match=r"meta_Beauty\.json\.gz, row 1: the line is broken"):
        read(tmp_path, "2014")
    assert not trap.exists()


def test_2018_counts_repeated_metadata_and_page_source_as_no_title(tmp_path):
    meta: list[object] = [
        {"asin": "B1", "title": "First", "brand": "", "category": ["Beauty", "Hair"]},
        {"asin": "B1", "title": "Second", "brand": "X", "category": []},
        {"asin": "B2", "title": "var aPageStart = (new Date()).getTime();", "brand": "Y"},
    ]
    write(tmp_path, "2018", [review("u", "B1", 1), review("u", "B2", 2)], meta)
    _, tables = read(tmp_path, "2018")
    assert tables.items["title"].to_list() == ["First", "B2"]
    assert facets(tables, "B1") == [("category", "Hair")]
    assert facets(tables, "B2") == [("brand", "Y")]
    assert tables.noted == {"repeated_metadata_lines": 1, "items_without_title": 1}


def test_2023_joins_by_parent_item_and_reads_milliseconds(tmp_path):
    event = {"user_id": "u", "rating": 5.0}
    reviews: list[object] = [
        event | {"asin": "V1", "parent_asin": "P1", "timestamp": 1400000000900},
        event | {"asin": "V2", "parent_asin": "P2", "timestamp": 1400000000100},
    ]
    meta: list[object] = [
        {"parent_asin": "P1", "title": "T1", "store": "S", "details": {"Brand": "B"}},
        {"parent_asin": "P2", "title": "T2", "store": "S", "categories": ["Beauty", "Nails"]},
    ]
    write(tmp_path, "2023", reviews, meta)
    raw, tables = read(tmp_path, "2023")
    assert raw.interactions["item_id"].to_list() == ["P2", "P1"]
    assert tables.interactions["timestamp"].to_list() == [1400000000, 1400000000]
    assert facets(tables, "P1") == [("brand", "B")]
    assert facets(tables, "P2") == [("brand", "S"), ("category", "Nails")]


def test_damaged_amazon_files_are_refused_by_file_and_row(tmp_path):
    write(tmp_path, "2018", [review("u", "B1", 1), review("u", "B2", 2)], '{"asin": "B1", "tit')
    with pytest.raises(BadInputError, match=r"meta_Beauty\.json\.gz, row 1: the line is broken"):
        read(tmp_path, "2018")
    reviews = tmp_path / NAMES["2018"][0]
    reviews.write_bytes(reviews.read_bytes()[:-10])
    with pytest.raises(BadInputError, match=r"Beauty_5\.json\.gz: gzip file .* cut short"):
        read(tmp_path, "2018")
    reviews.write_bytes(gzip.compress(b'{"asin": "B1", "reviewerID": "u", "overall": "bad"}\n'))
    with pytest.raises(BadInputError, match="no row has the field unixReviewTime"):
        read(tmp_path, "2018")


def test_metadata_alone_are_not_a_raw_folder(tmp_path):
    (tmp_path / "meta_Beauty.json.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(BadInputError, match=r"neither reviews_Beauty_5\.json\.gz and meta_Beauty"):
        source_files(settings(tmp_path, "2014"), tmp_path)
