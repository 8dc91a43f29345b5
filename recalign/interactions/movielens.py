"""MovieLens 100K and 1M in GroupLens' own files, from their zip or an unpacked folder."""

from pathlib import Path

import polars as pl

from recalign.errors import BadInputError
from recalign.interactions.columns import typed_interactions
from recalign.interactions.rawlines import read_bytes, zip_member
from recalign.interactions.rawtables import RAW_ITEMS, Origin, RawTables
from recalign.interactions.titles import Attribute, attributes, clean, era
from recalign.progress import Progress

GENRES_100K = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
]  # fmt: skip
"""The flags that end a line of u.item, in the order of u.genre."""
FIELDS = ["user_id", "item_id", "rating", "timestamp"]


def read_movielens(source: str, files: list[Path], progress: Progress) -> RawTables:
    """The ratings and movies of `source` ('ml-100k' or 'ml-1m'): from one zip, or two files.

    Raises BadInputError for a damaged file or a line that is not as published.
    """
    names = ("u.data", "u.item") if source == "ml-100k" else ("ratings.dat", "movies.dat")
    contents = []
    for done, name in enumerate(names):
        progress(done, len(names), name)
        path = files[0] if len(files) == 1 else files[done]
        zipped = path.suffix == ".zip"
        contents.append((path, zip_member(path, name) if zipped else read_bytes(path)))
    progress(len(names), len(names), names[-1])
    separator = "\t" if source == "ml-100k" else "::"
    return RawTables(_ratings(*contents[0], separator), _movies(source, *contents[1]))


def _ratings(path: Path, content: bytes, separator: str) -> pl.DataFrame:
    """polars knows no separator of two characters: '::' is ':' with an empty field between."""
    step = len(separator)
    columns = [f"field_{place}" for place in range(3 * step + 1)]
    try:
        cells = pl.read_csv(
            content,
            separator=separator[0],
            has_header=False,
            quote_char=None,
            schema=dict.fromkeys(columns, pl.String),
            row_index_name="row",
            row_index_offset=1,
        )
    except (pl.exceptions.ComputeError, pl.exceptions.NoDataError) as problem:
        _refuse_ragged(path, content, separator)
        raise BadInputError(f"{path}: cannot be read as ratings: {problem}") from problem
    named = cells.select("row", *(pl.col(columns[i * step]).alias(f) for i, f in enumerate(FIELDS)))
    table = typed_interactions(
        named.filter(~pl.all_horizontal(pl.col(FIELDS).is_null())),
        Origin(path, {f: f"{place} ({f})" for place, f in enumerate(FIELDS, start=1)}),
    )
    if table["rating"].null_count():
        row = int(table.filter(pl.col("rating").is_null())["row"][0])
        raise BadInputError(f"{path}, row {row}, field 3 (rating): is empty; fetch the file again")
    return table


def _refuse_ragged(path: Path, content: bytes, separator: str) -> None:
    for row, line in enumerate(content.split(b"\n"), start=1):
        n_fields = line.count(separator.encode()) + 1
        if line.strip() and n_fields != len(FIELDS):
            raise BadInputError(
                f"{path}, row {row}: has {n_fields} fields instead of {len(FIELDS)}; "
                "fetch the publisher's file again"
            )


def _movies(source: str, path: Path, content: bytes) -> pl.DataFrame:
    """Title, genres and era of every movie; ids must be distinct."""
    separator, n_fields = ("|", 24) if source == "ml-100k" else ("::", 3)
    rows: dict[str, tuple[str, list[Attribute]]] = {}
    for row, line in enumerate(content.decode("iso-8859-1").split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split(separator)
        if len(fields) != n_fields:
            raise BadInputError(
                f"{path}, row {row}: has {len(fields)} fields instead of {n_fields}; "
                "fetch the publisher's file again"
            )
        movie = fields[0].strip()
        if movie in rows:
            raise BadInputError(f"{path}, row {row}, field 1 (item_id): '{movie}' occurs twice")
        rows[movie] = (clean(fields[1]), _attributes(source, fields))
    titles = [title or None for title, _ in rows.values()]
    facets = [attributes_ for _, attributes_ in rows.values()]
    columns = {"item_id": list(rows), "title": titles, "attributes": facets}
    return pl.DataFrame(columns, schema=RAW_ITEMS)


def _attributes(source: str, fields: list[str]) -> list[Attribute]:
    if source == "ml-100k":
        flags = zip(GENRES_100K, fields[5:], strict=True)
        genres = [name for name, flag in flags if flag == "1" and name != "unknown"]
    else:
        genres = [fields[2]]
    return attributes("genre", genres) + attributes("era", era(clean(fields[1])))
