"""Cells become typed columns: ids, times and ratings, each refused by file, row and field."""

from bisect import bisect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import polars as pl

from recalign.interactions.rawtables import RAW_INTERACTIONS, Origin

UNITS = ["seconds", "milliseconds", "microseconds", "nanoseconds"]
FINER_FROM = [1e11, 1e14, 1e17]
"""Smallest number read in each finer unit: in the one before it would be of the year 5138."""
DAYS_TO_1970 = 25569
EXCEL_DAYS = (21916, 73050)
"""What a spreadsheet writes for times of 1960 to 2099: days since the end of 1899."""
WRITTEN_DATES = (19000101, 20991231)
"""The numbers that are read as days, such as 20140501."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USUAL = r"^[12]\d{3}-\d\d-\d\d(?:[T ]\d\d:\d\d:[0-5]\dZ?)?$"
NUMBER_OR_ISO = "write seconds or milliseconds since 1970, or ISO 8601 (2014-05-01T12:00:00Z)"
NO_ID = "is empty; every row needs an id"
LARGEST_WHOLE = 2.0**53
"""Above it not every whole number is a float: two ids may have become one."""


def typed_interactions(
    cells: pl.DataFrame,
    origin: Origin,
    *,
    may_be_dates: bool = True,
    known: Mapping[str, pl.Series] = MappingProxyType({}),
) -> pl.DataFrame:
    """RAW_INTERACTIONS and `row` from cells of any type: ids, row; timestamp and rating if given.

    Without a timestamp column the row number is the time. Rows that a finer clock than seconds
    puts in another order are put in that order here, since ties in seconds keep the row order.
    may_be_dates: whether numbers such as 41760 or 20140501 are days; else they are seconds.
    known: ids of the run that these rows are newer than, by column (see `whole_numbers`).
    Raises BadInputError at the first empty id, unreadable time or rating.
    """
    row = cells["row"].cast(pl.Int64)
    user_ids = ids(cells["user_id"], row, origin, "user_id", known.get("user_id"))
    item_ids = ids(cells["item_id"], row, origin, "item_id", known.get("item_id"))
    times = row
    if "timestamp" in cells.columns:
        times = _times(cells["timestamp"], row, origin, may_be_dates)
    table = pl.DataFrame(
        {
            "user_id": user_ids,
            "item_id": item_ids,
            "timestamp": times.floor().cast(pl.Int64) if times.dtype.is_float() else times,
            "rating": _ratings(cells, row, origin),
            "row": row,
        },
        schema={**RAW_INTERACTIONS, "row": pl.Int64},
    )
    if times.dtype.is_float() and bool((times != table["timestamp"]).any()):
        table = table.with_columns(times.alias("fine"))
        table = table.sort("fine", maintain_order=True).drop("fine")
    return table


def ids(
    cells: pl.Series, row: pl.Series, origin: Origin, column: str, known: pl.Series | None = None
) -> pl.Series:
    """Ids as text without surrounding blanks; whole floats (pandas with gaps) as integers."""
    kind = cells.dtype
    if kind.is_float():
        cells = cells.fill_nan(None)  # as data frames write gaps
        refuse_first(cells.is_null(), cells, row, origin, column, NO_ID)
        whole = cells.is_finite() & (cells == cells.floor())
        refuse_first(~whole, cells, row, origin, column, "is not an id")
        problem = "is a float too large to tell ids apart; write ids as integers or text"
        refuse_first(cells.abs() >= LARGEST_WHOLE, cells, row, origin, column, problem)
        cells = cells.cast(pl.Int64)
    elif kind.is_nested() or kind == pl.Duration or kind in (pl.Binary, pl.Time):
        first = int(row[0]) if len(row) else 1
        origin.refuse(first, column, f"is of type {kind}; ids are text or numbers")
    text = whole_numbers(cells.cast(pl.String).str.strip_chars(), known)
    empty = text.is_null() | (text == "")
    refuse_first(empty, cells, row, origin, column, NO_ID)
    return text


def whole_numbers(text: pl.Series, known: pl.Series | None = None) -> pl.Series:
    """'12' for '12.0', if all cells that are not empty are written so (by pandas, with gaps).

    Where ids `known` before hold such text (versions: 1.0, 1.1), it stays as it is.
    """
    written = r"^-?\d+\.0+$"
    if known is not None and known.str.contains(written).any():
        return text
    first = text.drop_nulls().head(1)
    if first.str.contains(written).all() and text.str.contains(written).all():
        return text.str.replace(r"\.0+$", "")
    return text


def _ratings(cells: pl.DataFrame, row: pl.Series, origin: Origin) -> pl.Series:
    """Ratings as Float32; an empty cell is null, anything else must be a finite number."""
    if "rating" not in cells.columns:
        return pl.Series("rating", [None], dtype=pl.Float32).new_from_index(0, len(row))
    given = _plain(cells["rating"])
    numbers = _numbers(given).cast(pl.Float32)  # too large a number becomes infinite
    bad = given.is_not_null() & ~numbers.is_finite().fill_null(False)
    refuse_first(bad, given, row, origin, "rating", "is not a number; decimals have a point")
    return numbers


def _times(cells: pl.Series, row: pl.Series, origin: Origin, may_be_dates: bool) -> pl.Series:
    """Seconds since 1970 (UTC), Int64 or with their fractions Float64.

    From dates, ISO 8601 text, numbers in one of UNITS, days of a spreadsheet, or dates as 20140501.
    """
    given = _plain(cells)
    refuse_first(given.is_null(), given, row, origin, "timestamp", f"is empty; {NUMBER_OR_ISO}")
    if given.dtype == pl.Date or isinstance(given.dtype, pl.Datetime):
        return given.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    numbers = _numbers(given)
    if given.dtype == pl.String and numbers.null_count() * 2 > len(numbers):
        return _iso_milliseconds(given, row, origin) / 1000
    bad = ~numbers.is_finite().fill_null(False) | (numbers.abs() >= 1e19)
    refuse_first(bad, given, row, origin, "timestamp", f"is not a time; {NUMBER_OR_ISO}")
    if given.dtype == pl.Float32:
        coarse = (numbers.abs() >= 2.0**24) | (numbers != numbers.floor())
        problem = "is of type Float32, in which near times are one; write Float64 or integers"
        refuse_first(coarse, given, row, origin, "timestamp", problem)
    dates = _dates(numbers) if may_be_dates else None
    return _in_seconds(numbers, given, row, origin) if dates is None else dates


def _dates(numbers: pl.Series) -> pl.Series | None:
    """Seconds of days that a spreadsheet numbers or of dates as 20140501, if all are such."""
    if numbers.is_between(*EXCEL_DAYS).all():
        return (numbers - DAYS_TO_1970) * 86400
    if numbers.is_between(*WRITTEN_DATES).all():
        days = numbers.cast(pl.Int64).cast(pl.String).str.to_date("%Y%m%d", strict=False)
        if not days.has_nulls() and (numbers == numbers.floor()).all():
            return days.cast(pl.Datetime("ms")).dt.epoch("s")
    return None


def _in_seconds(numbers: pl.Series, given: pl.Series, row: pl.Series, origin: Origin) -> pl.Series:
    """Seconds, from the one unit that the sizes of all numbers tell."""
    if numbers.is_empty():
        return numbers
    sizes = numbers.abs()
    unit = bisect(FINER_FROM, sizes.to_numpy().min())
    if unit < bisect(FINER_FROM, sizes.to_numpy().max()):
        finer = sizes >= FINER_FROM[unit]
        found = UNITS[bisect(FINER_FROM, sizes.filter(finer)[0])]
        mixed = f"is in {found}, other rows are in {UNITS[unit]}; write all in one unit"
        refuse_first(finer, given, row, origin, "timestamp", mixed)
    return numbers / 1000.0**unit


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


def _plain(cells: pl.Series) -> pl.Series:
    """Text stripped of blanks, with empty text as null; categories as text; others as they are."""
    if cells.dtype in (pl.Categorical, pl.Enum):
        cells = cells.cast(pl.String)
    if cells.dtype != pl.String:
        return cells
    text = cells.str.strip_chars()
    return text.set(text == "", None)


def _numbers(cells: pl.Series) -> pl.Series:
    """Float64, null where a cell is not a number (booleans and nested values never are).

    Commas are read as decimal points where they can be nothing else: no cell has a point, and not
    every comma stands before three digits.
    """
    if not cells.dtype.is_numeric() and cells.dtype not in (pl.String, pl.Null):
        return pl.Series(cells.name, [None], dtype=pl.Float64).new_from_index(0, len(cells))
    numbers = cells.cast(pl.Float64, strict=False)
    if cells.dtype == pl.String and numbers.null_count() > cells.null_count():
        commas = cells.filter(cells.str.contains(r"^[+-]?\d+,\d+$"))
        pointed = cells.str.contains(".", literal=True).any()
        if not pointed and not commas.str.contains(r"^[+-]?\d{1,3},\d{3}$").all():
            return cells.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
    return numbers


def refuse_first(
    bad: pl.Series, cells: pl.Series, row: pl.Series, origin: Origin, column: str, problem: str
) -> None:
    """Raise BadInputError for the first row where `bad` holds."""
    rows = bad.arg_true()
    if len(rows):
        first = int(rows[0])
        value = cells.slice(first, 1).to_list()[0]
        shown = "" if value is None or value == "" else f"'{str(value)[:60]}' "
        origin.refuse(int(row[first]), column, f"{shown}{problem}")
