"""Cells become typed columns: ids, times and ratings, each refused by file, row and field."""

from datetime import UTC, datetime, timedelta

import polars as pl

from recalign.interactions.rawtables import RAW_INTERACTIONS, Origin

MILLISECONDS_FROM = 1e11
"""Smallest number read as milliseconds: as seconds it would be in the year 5138."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USUAL = r"^[12]\d{3}-\d\d-\d\d(?:[T ]\d\d:\d\d:[0-5]\dZ?)?$"
NUMBER_OR_ISO = "write seconds or milliseconds since 1970, or ISO 8601 (2014-05-01T12:00:00Z)"


def typed_interactions(cells: pl.DataFrame, origin: Origin) -> pl.DataFrame:
    """RAW_INTERACTIONS and `row` from cells of any type: ids, row; timestamp and rating if given.

    Without a timestamp column the row number is the time. Rows that a finer clock than seconds
    puts in another order are put in that order here, since ties in seconds keep the row order.
    Raises BadInputError at the first empty id, unreadable time or rating.
    """
    row = cells["row"].cast(pl.Int64)
    user_ids = ids(cells["user_id"], row, origin, "user_id")
    item_ids = ids(cells["item_id"], row, origin, "item_id")
    milliseconds = None
    if "timestamp" in cells.columns:
        milliseconds = _milliseconds(cells["timestamp"], row, origin)
        seconds = milliseconds // 1000
    else:
        seconds = row
    table = pl.DataFrame(
        {
            "user_id": user_ids,
            "item_id": item_ids,
            "timestamp": seconds,
            "rating": _ratings(cells, row, origin),
            "row": row,
        },
        schema={**RAW_INTERACTIONS, "row": pl.Int64},
    )
    if milliseconds is not None and bool((milliseconds % 1000 != 0).any()):
        fine = milliseconds.alias("fine")
        table = table.with_columns(fine).sort("fine", maintain_order=True).drop("fine")
    return table


def ids(cells: pl.Series, row: pl.Series, origin: Origin, column: str) -> pl.Series:
    """Ids as text without surrounding blanks; whole floats (pandas with gaps) as integers."""
    if cells.dtype.is_float():
        whole = cells.is_finite() & (cells == cells.floor())
        refuse_first(~whole.fill_null(False), cells, row, origin, column, "is not an id")
        cells = cells.cast(pl.Int64)
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        origin.refuse(int(row[0]), column, f"is of type {cells.dtype}; ids are text or numbers")
    text = cells.cast(pl.String).str.strip_chars()
    empty = text.is_null() | (text == "")
    refuse_first(empty, cells, row, origin, column, "is empty; every row needs an id")
    return text


def _ratings(cells: pl.DataFrame, row: pl.Series, origin: Origin) -> pl.Series:
    """Ratings as Float32; an empty cell is null, anything else must be a finite number."""
    if "rating" not in cells.columns:
        return pl.Series("rating", [None], dtype=pl.Float32).new_from_index(0, len(row))
    given = _blank_is_null(cells["rating"])
    numbers = _numbers(given)
    bad = given.is_not_null() & ~numbers.is_finite().fill_null(False)
    refuse_first(bad, given, row, origin, "rating", "is not a number; mend or remove the row")
    return numbers.cast(pl.Float32)


def _milliseconds(cells: pl.Series, row: pl.Series, origin: Origin) -> pl.Series:
    """Times in milliseconds since 1970 (UTC), Int64, from numbers, dates or ISO 8601 text."""
    if cells.dtype == pl.Date or isinstance(cells.dtype, pl.Datetime):
        moments = cells.cast(pl.Datetime("us")) if cells.dtype == pl.Date else cells
        times = moments.dt.epoch("ms")
        refuse_first(times.is_null(), cells, row, origin, "timestamp", "is empty")
        return times
    given = _blank_is_null(cells)
    refuse_first(given.is_null(), given, row, origin, "timestamp", f"is empty; {NUMBER_OR_ISO}")
    numbers = _numbers(given)
    if given.dtype == pl.String and numbers.null_count() * 2 > len(numbers):
        return _iso_milliseconds(given, row, origin)
    bad = ~numbers.is_finite().fill_null(False) | (numbers.abs() >= 1e15)
    refuse_first(bad, given, row, origin, "timestamp", f"is not a time; {NUMBER_OR_ISO}")
    fine = numbers.abs() >= MILLISECONDS_FROM
    if fine.all():
        return numbers.cast(pl.Int64)
    mixed = "is in milliseconds, other rows are in seconds; write all in one unit"
    refuse_first(fine, given, row, origin, "timestamp", mixed)
    return (numbers * 1000).floor().cast(pl.Int64)


def _iso_milliseconds(text: pl.Series, row: pl.Series, origin: Origin) -> pl.Series:
    """ISO 8601 as milliseconds since 1970; a time without a zone is UTC."""
    times = _usual_milliseconds(text)
    known: dict[str, int | None] = {}
    for value in text.filter(times.is_null()).unique():
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            known[value] = None
            continue
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        known[value] = (zoned - EPOCH) // timedelta(milliseconds=1)
    if known:
        others = text.replace_strict(known, default=None, return_dtype=pl.Int64)
        times = times.zip_with(times.is_not_null(), others)
    refuse_first(times.is_null(), text, row, origin, "timestamp", f"is not a time; {NUMBER_OR_ISO}")
    return times


def _usual_milliseconds(text: pl.Series) -> pl.Series:
    """The same by whole columns, for '2014-05-01' and '2014-05-01T12:00:00Z'; others are null.

    Only what matches USUAL is tried, as polars would also take times that are not ISO 8601.
    """
    usual = text.set(~text.str.contains(USUAL), None).str.head(19).str.replace("T", " ")
    days = usual.str.to_datetime("%Y-%m-%d", strict=False, time_unit="ms")
    moments = usual.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="ms")
    return moments.zip_with(moments.is_not_null(), days).dt.epoch("ms")


def _blank_is_null(cells: pl.Series) -> pl.Series:
    """Text stripped of blanks, with empty text as null; other types as they are."""
    if cells.dtype != pl.String:
        return cells
    text = cells.str.strip_chars()
    return text.set(text == "", None)


def _numbers(cells: pl.Series) -> pl.Series:
    """Float64, null where a cell is not a number (booleans and nested values never are)."""
    if cells.dtype.is_numeric() or cells.dtype in (pl.String, pl.Null):
        return cells.cast(pl.Float64, strict=False)
    return pl.Series(cells.name, [None], dtype=pl.Float64).new_from_index(0, len(cells))


def refuse_first(
    bad: pl.Series, cells: pl.Series, row: pl.Series, origin: Origin, column: str, problem: str
) -> None:
    """Raise BadInputError for the first row where `bad` holds."""
    rows = bad.arg_true()
    if len(rows):
        first = int(rows[0])
        value = cells[first]
        shown = "" if value is None or value == "" else f"'{str(value)[:60]}' "
        origin.refuse(int(row[first]), column, f"{shown}{problem}")
