"""MovieLens of every edition in GroupLens' own files, from their zip or an unpacked folder."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl

from recalign.config.interactions import MovieLens
from recalign.errors import BadInputError
from recalign.interactions.catalogue import item_table
from recalign.interactions.ratinglines import read_ratings
from recalign.interactions.rawlines import read_bytes
from recalign.interactions.rawtables import RawTables
from recalign.interactions.titles import Attribute, attributes, clean, era
from recalign.progress import Progress

GENRES_100K = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
]  # fmt: skip
"""The flags that end a line of u.item, in the order of u.genre."""
NO_GENRES = "(no genres listed)"


@dataclass(frozen=True)
class Edition:
    """How an edition's two files are called and written."""

    ratings: str
    movies: str
    separator: str
    """Between the fields of a rating."""
    movie_separator: str
    n_movie_fields: int
    header: str = ""
    """First line of the ratings, empty where there is none."""


def edition(source: MovieLens) -> Edition:
    """The edition called `source`: ml-100k, ml-1m, ml-10m, or a later one, which are all CSV."""
    match source:
        case "ml-100k":
            return Edition("u.data", "u.item", "\t", "|", 24)
        case "ml-1m" | "ml-10m":
            return Edition("ratings.dat", "movies.dat", "::", "::", 3)
        case _:
            header = "userId,movieId,rating,timestamp"
            return Edition("ratings.csv", "movies.csv", ",", ",", 3, header)


def read_movielens(source: MovieLens, files: list[Path], progress: Progress) -> RawTables:
    """The ratings and movies of `source`: from one zip, or two files.

    Raises BadInputError for a damaged file or a line that is not as published.
    """
    form = edition(source)
    ratings = read_ratings(files[0], form.ratings, form.separator, form.header, progress)
    return RawTables(ratings, _movies(form, files[-1]))


def _movies(form: Edition, path: Path) -> pl.DataFrame:
    """Title, genres and era of every movie; ids must be distinct."""
    content = read_bytes(path, form.movies)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("iso-8859-1")  # 100K and 1M
    movies: dict[str, tuple[str | None, list[Attribute]]] = {}
    for row, fields in _records(form, path, text):
        if len(fields) != form.n_movie_fields:
            raise BadInputError(
                f"{path}, row {row}: has {len(fields)} fields instead of {form.n_movie_fields}; "
                "fetch the publisher's file again"
            )
        movie = fields[0].strip()
        if movie in movies:
            raise BadInputError(f"{path}, row {row}, field 1 (item_id): '{movie}' occurs twice")
        title = clean(fields[1])
        movies[movie] = (title or None, _genres(fields) + attributes("era", era(title)))
    return item_table(movies)


def _records(form: Edition, path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every movie; the CSV editions quote titles with commas."""
    if form.header:
        reader = csv.reader(io.StringIO(text, newline=None))  # a line may end in \r alone
        try:
            next(reader, None)
            yield from ((reader.line_num, record) for record in reader if record)
        except csv.Error as error:
            told = f"{path}, row {reader.line_num}: {error}; fetch the publisher's file again"
            raise BadInputError(told) from error
    else:
        for row, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield row, line.rstrip("\r").split(form.movie_separator)


def _genres(fields: list[str]) -> list[Attribute]:
    if len(fields) == 3:
        return _listed_genres(fields[2])
    flags = zip(GENRES_100K, fields[5:], strict=True)
    return attributes("genre", [name for name, flag in flags if flag == "1" and name != "unknown"])


@lru_cache(maxsize=4096)
def _listed_genres(text: str) -> list[Attribute]:
    """'Action|Crime' as attributes; many films have the same."""
    return attributes("genre", "" if text.strip() == NO_GENRES else text)
