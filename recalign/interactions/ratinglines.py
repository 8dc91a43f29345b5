"""Lines of user, item, rating and time as columns: whole blocks at once, odd ones line by line."""

from pathlib import Path

import numpy as np
import polars as pl

from recalign.errors import BadInputError
from recalign.interactions.columns import typed_interactions
from recalign.interactions.rawlines import blocks
from recalign.interactions.rawtables import RAW_INTERACTIONS, Origin
from recalign.progress import Progress

FIELDS = ["user_id", "item_id", "rating", "timestamp"]
TYPES = [pl.UInt32, pl.UInt32, pl.Float32, pl.UInt32]  # seconds fit until 2106
AGAIN = "fetch the publisher's file again"


def read_ratings(
    path: Path, member: str, separator: str, header: str, progress: Progress
) -> pl.DataFrame:
    """RAW_INTERACTIONS of a file (`member` of it, if a zip) of FIELDS without quotes.

    Ids and times are UInt32 unless a line holds another kind. Memory is that of the columns and one
    block of lines: a block that is not four plain numbers a line is read again as text, which
    names the row and field of what is wrong or passes what is merely unusual (blank lines).
    Raises BadInputError for a damaged file or line, or another `header`.
    """
    tables: list[pl.DataFrame] = []
    before = 0
    for block in blocks(path, progress, member):
        if before == 0 and header:
            block = _without_header(path, block, header)
            before = 1
        n_breaks = int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")))
        n_lines = n_breaks + (not block.endswith(b"\n"))
        table = _plain(block, separator, n_lines)
        tables.append(_odd(path, block, separator, before) if table is None else table)
        before += n_lines
    if not any(table.height for table in tables):
        raise BadInputError(f"{path}: is empty; it needs a header or at least one row")
    for name, kind in RAW_INTERACTIONS.items():
        if any(table.schema[name] == kind for table in tables):
            tables = [table.with_columns(pl.col(name).cast(kind)) for table in tables]
    return pl.concat(tables)


def _without_header(path: Path, block: bytes, header: str) -> bytes:
    first, _, rest = block.partition(b"\n")
    found = first.decode("utf-8-sig", errors="replace").strip()
    if found != header:
        raise BadInputError(f"{path}, row 1: is '{found[:60]}' instead of '{header}'; {AGAIN}")
    return rest


def _schema(separator: str) -> dict[str, type[pl.DataType]]:
    """polars knows no separator of two characters: '::' is ':' with an empty field between."""
    step = len(separator)
    schema: dict[str, type[pl.DataType]] = {}
    for name, kind in zip(FIELDS, TYPES, strict=True):
        schema |= {f"before_{name}": pl.String} if schema and step == 2 else {}
        schema[name] = kind
    return schema


def _plain(block: bytes, separator: str, n_lines: int) -> pl.DataFrame | None:
    """The block's columns; None unless every line holds four plain numbers and nothing else."""
    try:
        table = pl.read_csv(
            block,
            separator=separator[0],
            has_header=False,
            quote_char=None,
            schema=_schema(separator),
        ).select(list(RAW_INTERACTIONS))
    except (pl.exceptions.PolarsError, OSError):  # polars unpacks what looks packed
        return None
    if (
        table.height != n_lines
        or any(column.null_count() > 0 for column in table)
        or (len(separator) > 1 and block.count(separator.encode()) != 3 * n_lines)
        or not table["rating"].is_finite().all()
    ):
        return None
    return table


def _odd(path: Path, block: bytes, separator: str, before: int) -> pl.DataFrame:
    """The block's columns, read as text after `before` lines; a bad line raises BadInputError."""
    rows: list[list[str | int | None]] = []
    for row, line in enumerate(block.decode(errors="replace").split("\n"), start=before + 1):
        fields = line.rstrip("\r").split(separator)
        if line.strip() and len(fields) > len(FIELDS):
            raise BadInputError(
                f"{path}, row {row}: has {len(fields)} fields instead of {len(FIELDS)}; {AGAIN}"
            )
        if line.strip():
            rows.append([row, *fields, *[None] * (len(FIELDS) - len(fields))])
    schema = {"row": pl.Int64} | dict.fromkeys(FIELDS, pl.String)
    cells = pl.DataFrame(rows, schema=schema, orient="row")
    origin = Origin(path, {f: f"{place} ({f})" for place, f in enumerate(FIELDS, start=1)})
    table = typed_interactions(cells, origin) if rows else pl.DataFrame(schema=RAW_INTERACTIONS)
    for row, rating in zip(cells["row"], table["rating"], strict=True):
        if rating is None:
            origin.refuse(row, "rating", f"is empty; {AGAIN}")
    return table.select(
        _plain_ids(table["user_id"]), _plain_ids(table["item_id"]), "timestamp", "rating"
    )


def _plain_ids(ids: pl.Series) -> pl.Series:
    """The ids as UInt32, if each is a number written as such."""
    numbers = ids.cast(pl.UInt32, strict=False)
    return numbers if numbers.cast(pl.String).eq_missing(ids).all() else ids
