"""Goodreads shelves and books as the UCSD group publishes them (Wan and McAuley 2018)."""

from pathlib import Path
from typing import Any

import polars as pl

from recalign.interactions.catalogue import Description, item_table, wanted_records
from recalign.interactions.columns import refuse_first, typed_interactions
from recalign.interactions.rawlines import json_cells, parse_json
from recalign.interactions.rawtables import Origin, RawTables
from recalign.interactions.titles import attributes, clean, decade
from recalign.progress import Progress

FIELDS = {
    "user_id": "user_id",
    "item_id": "book_id",
    "rating": "rating",
    "timestamp": "date_added",  # read_at and started_at are mostly empty
}
DATE = "%a %b %d %H:%M:%S %z %Y"
MOST_VOTED = 3
"""Genres kept of a book: shelf names vote for as many as ten."""


def read_goodreads(files: list[Path], progress: Progress) -> RawTables:
    """Shelvings as interactions; `files` are the interactions, books, authors and genres.

    A rating of 0 means "not rated" and is read as none. A book's time is when it was shelved.
    Books that the catalogue lacks are kept, with their id as title.
    Raises BadInputError for damaged files, broken lines and unreadable dates.
    """
    shelvings, books, authors, genres = files
    origin = Origin(shelvings, FIELDS)
    cells = json_cells(shelvings, FIELDS, parse_json, progress)
    interactions = typed_interactions(_dated(cells, origin), origin).with_columns(
        pl.when(pl.col("rating") > 0).then("rating")
    )
    wanted = set(interactions["item_id"].unique())
    known, repeated = wanted_records(books, "book_id", wanted, _book, progress)
    writers = {author for _, ids, _ in known.values() for author in ids}
    names, _ = wanted_records(authors, "author_id", writers, _name, progress)
    voted, _ = wanted_records(genres, "book_id", set(known), _genres, progress)
    described: dict[str, Description] = {}
    for book, (title, writer_ids, era) in known.items():
        creators = [names[author] for author in writer_ids if author in names]
        facets = attributes("genre", voted.get(book)) + attributes("creator", creators)
        described[book] = (title, facets + attributes("era", era))
    noted = {"repeated_books": repeated}
    return RawTables(interactions, item_table(described), unknown_items="keep", noted=noted)


def _dated(cells: pl.DataFrame, origin: Origin) -> pl.DataFrame:
    """`cells` with times instead of "Sat Jan 09 19:50:11 -0800 2010"."""
    text = cells["timestamp"]
    times = text.str.to_datetime(DATE, time_unit="ms", strict=False)
    bad = text.is_not_null() & times.is_null()
    problem = "is no date like 'Sat Jan 09 19:50:11 -0800 2010'"
    refuse_first(bad, text, cells["row"], origin, "timestamp", problem)
    return cells.with_columns(times)


def _book(book: dict[str, Any]) -> tuple[str | None, list[str], str | None]:
    """Title, author ids without illustrators and the like, decade of publication."""
    people = [person for person in book.get("authors") or [] if isinstance(person, dict)]
    writers = [person for person in people if not person.get("role")] or people[:1]
    ids = [str(person.get("author_id")) for person in writers]
    title = clean(str(book.get("title") or "")) or None
    return title, ids, decade(str(book.get("publication_year") or ""))


def _name(author: dict[str, Any]) -> str:
    return clean(str(author.get("name") or ""))


def _genres(book: dict[str, Any]) -> list[str]:
    votes = book.get("genres")
    ordered = sorted(votes.items(), key=lambda vote: -vote[1]) if isinstance(votes, dict) else []
    return [genre for genre, _ in ordered[:MOST_VOTED]]
