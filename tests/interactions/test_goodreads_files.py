"""Goodreads: four files, dates as the site wrote them, 0 for "not rated"."""

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from recalign.config import GoodreadsSource, InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.ingest import Ingested, ingest
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

SHELVED = "Fri Apr 19 08:15:15 -0700 2013"
BOOKS = [
    {"isbn": "", "series": [], "book_id": "402128", "title": "Old Possum&#39;s Book",
     "authors": [{"author_id": "18540", "role": ""}, {"author_id": "7", "role": "Illustrator"}],
     "publication_year": "1982", "similar_books": ["402129"], "popular_shelves": []},
    {"book_id": "402128", "title": "again"},
    {"book_id": "99", "title": "", "authors": [], "publication_year": ""},
    {"book_id": "5", "title": "nobody shelved it", "authors": []},
]  # fmt: skip
AUTHORS = [{"author_id": "18540", "name": "T.S. Eliot"}, {"author_id": "7", "name": "E. Gorey"}]
GENRES = [
    {"book_id": "402128", "genres": {"fiction": 2, "poetry": 90, "children": 5, "young-adult": 1}},
    {"book_id": "99", "genres": {}},
]


def shelving(user: str, book: str, rating: int, date: str = SHELVED) -> dict[str, object]:
    return {
        "user_id": user, "book_id": book, "review_id": f"{user}{book}", "is_read": True,
        "rating": rating, "review_text_incomplete": "", "date_added": date, "date_updated": date,
        "read_at": "", "started_at": "",
    }  # fmt: skip


SHELVINGS = [
    shelving("80d5", "402128", 4),
    shelving("80d5", "99", 0, "Sat Jan 09 19:50:11 -0800 2010"),
    shelving("a1b2", "77", 3),
]


def read(
    folder: Path, shelvings: list[dict[str, object]], genre: str
) -> tuple[RawTables, Ingested]:
    suffix = f"_{genre}"
    names = [f"goodreads_interactions{suffix}.json.gz", f"goodreads_books{suffix}.json.gz"]
    if genre == "all":
        names = ["goodreads_interactions_dedup.json.gz", "goodreads_books.json.gz"]
    names += ["goodreads_book_authors.json.gz", "goodreads_book_genres_initial.json.gz"]
    files: tuple[Sequence[object], ...] = (shelvings, BOOKS, AUTHORS, GENRES)
    for name, lines in zip(names, files, strict=True):
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / name).write_bytes(gzip.compress(text.encode()))
    source = GoodreadsSource.model_validate({"genre": genre})
    config = InteractionsConfig(source="goodreads", raw_folder=str(folder), goodreads=source)
    raw = read_source(config, source_files(config, folder / "never written"))
    return raw, ingest(raw, config)


@pytest.mark.parametrize("genre", ["poetry", "all"])
def test_shelvings_have_the_time_they_were_added_and_no_rating_where_it_is_zero(tmp_path, genre):
    raw, _ = read(tmp_path, SHELVINGS, genre)
    moment = datetime(2013, 4, 19, 8, 15, 15, tzinfo=timezone(timedelta(hours=-7)))
    seconds = int(moment.timestamp())
    earlier = int(datetime(2010, 1, 10, 3, 50, 11, tzinfo=UTC).timestamp())
    assert raw.interactions.select("user_id", "item_id", "timestamp", "rating").rows() == [
        ("80d5", "402128", seconds, 4.0),
        ("80d5", "99", earlier, None),
        ("a1b2", "77", seconds, 3.0),
    ]


def test_books_get_their_writers_most_voted_genres_and_decade(tmp_path):
    raw, tables = read(tmp_path, SHELVINGS, "poetry")
    titles = dict(tables.items.select("item_id", "title").iter_rows())
    assert titles == {"402128": "Old Possum's Book", "99": "99", "77": "77"}
    facets = dict(tables.items.select("item_id", "attributes").iter_rows())
    assert [(a["name"], a["value"]) for a in facets["402128"]] == [
        ("genre", "poetry"),
        ("genre", "children"),
        ("genre", "fiction"),
        ("creator", "T.S. Eliot"),
        ("era", "1980s"),
    ]
    assert raw.noted == {"repeated_books": 1}
    assert tables.noted["items_without_metadata"] == 1
    assert tables.noted["items_without_title"] == 1


def test_a_date_that_is_none_is_refused_by_row_and_field(tmp_path):
    shelvings = [*SHELVINGS, shelving("c", "5", 1, "2013-04-19")]
    with pytest.raises(BadInputError, match=r"row 4, field date_added: '2013-04-19' is no date"):
        read(tmp_path, shelvings, "poetry")
