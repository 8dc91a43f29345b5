"""What every source hands to ingest, and how a source's bad row is reported."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import polars as pl

from recalign.errors import BadInputError
from recalign.schemas import ATTRIBUTES, Schema

RAW_INTERACTIONS: Schema = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Int64,  # seconds since 1970, or the row's number where the source has no time
    "rating": pl.Float32,  # null: none given
}
RAW_ITEMS: Schema = {"item_id": pl.String, "title": pl.String, "attributes": ATTRIBUTES}


@dataclass(frozen=True)
class RawTables:
    """A source as read: every row of it, none dropped.

    `interactions` are RAW_INTERACTIONS in the order that ties in time keep; ids and times may be
    UInt32 where the source's are such numbers (a quarter and half of the memory). `unknown_items`
    says whether an interaction with an item that `items` lacks is kept (its id serves as title)
    or dropped. `noted` counts what reading mended, such as repeated metadata lines.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    unknown_items: Literal["drop", "keep"] = "drop"
    noted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a table was read from, to name file, row and field in a message."""

    path: Path
    fields: dict[str, str]
    """The source's own name of each of our columns."""
    line_of: Callable[[int], int] = lambda row: row
    """The 1-based line that holds row number `row` (CSV cells may hold line breaks)."""

    def refuse(self, row: int, column: str, problem: str) -> NoReturn:
        """Raise BadInputError for `column` in `row`."""
        where = f"{self.path}, row {self.line_of(row)}, field {self.fields.get(column, column)}"
        raise BadInputError(f"{where}: {problem}")
