"""Columns of a CSV, TSV, JSONL or Parquet file with the number of each row, by file ending."""

import csv
import io
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from recalign.errors import BadInputError
from recalign.interactions.rawlines import decoded, json_cells, parse_json, read_bytes
from recalign.interactions.rawtables import Origin
from recalign.parquet import read_parquet, scan_parquet
from recalign.progress import Progress

if TYPE_CHECKING:
    import _csv

SEPARATORS = {".csv": ",;\t|", ".tsv": "\t,;|"}
"""What may stand between the cells, the likeliest first."""
LENIENT_ROWS = 10_000
"""Records that are Python's text at once, of a file that polars refuses."""
csv.field_size_limit(2**31 - 1)  # a review may be long; by itself Python stops at 131,072


def ending(path: Path) -> str:
    """'.csv', '.tsv', '.jsonl' or '.parquet', without a '.gz'; BadInputError for others."""
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    if kind not in (*SEPARATORS, ".jsonl", ".parquet") or name.endswith(".parquet.gz"):
        raise BadInputError(
            f"{path}: unknown kind of file; name it .csv, .tsv, .jsonl (each also .gz) or .parquet"
        )
    return kind


def read_cells(
    path: Path,
    fields: dict[str, str],
    progress: Progress,
    advice: str = "name yours in interactions.files",
    *,
    may_be_empty: bool = False,
) -> tuple[pl.DataFrame, Origin]:
    """The columns of `fields` (ours to the file's) under our names, with `row`.

    Cells of text formats are text. Raises BadInputError for damage, for columns without a row
    unless these `may_be_empty`, and with this advice for missing columns and columns whose name
    occurs twice.
    """
    kind = ending(path)
    if kind == ".jsonl":
        return json_cells(path, fields, parse_json, progress), Origin(path, fields)
    progress(0, 1, path.name)
    if kind == ".parquet":
        cells, origin = _parquet_cells(path, fields, advice), Origin(path, fields)
    else:
        content = read_bytes(path)
        if b"\n" not in content:  # as an old Macintosh ends its lines
            content = content.replace(b"\r", b"\n")
        names, separator = _header(path, content, SEPARATORS[kind], set(fields.values()))
        _require(path, names, fields, advice)
        places = {name: names.index(field) for name, field in fields.items()}
        cells = _csv_cells(path, content, separator, len(names), places)
        origin = Origin(path, fields, partial(_line_of, content, separator))
    if cells.height == 0 and not may_be_empty:
        raise BadInputError(f"{path}: has columns but no row")
    progress(1, 1, path.name)
    return cells, origin


def _parquet_cells(path: Path, fields: dict[str, str], advice: str) -> pl.DataFrame:
    try:
        _require(path, scan_parquet(path).collect_schema().names(), fields, advice)
        table = read_parquet(path, columns=list(set(fields.values())))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        raise BadInputError(
            f"{path}: is damaged, cut short, or no Parquet file ({problem})"
        ) from problem
    columns = [table[field].alias(name) for name, field in fields.items()]
    rows = pl.int_range(1, table.height + 1, dtype=pl.Int64, eager=True)
    return pl.DataFrame([rows.alias("row"), *columns])


def _header(path: Path, content: bytes, separators: str, wanted: set[str]) -> tuple[list[str], str]:
    """The names of the columns, and their separator: with which all wanted ones are there."""
    headers = {
        separator: [name.strip() for name in next(_records(path, content, separator), [])]
        for separator in separators
    }
    separator = max(separators, key=lambda one: (wanted <= set(headers[one]), len(headers[one])))
    return headers[separator], separator


def _require(path: Path, names: list[str], fields: dict[str, str], advice: str) -> None:
    """BadInputError unless each wanted column is there once."""
    missing = [field for field in fields.values() if field not in names]
    several = [field for field in fields.values() if names.count(field) > 1]
    if missing or several:
        problem = "has no column" if missing else "has more than one column"
        raise BadInputError(
            f"{path}: {problem} {', '.join(missing or several)}; its columns are "
            f"{', '.join(names)[:400]}; {advice}"
        )


def _csv_cells(
    path: Path, content: bytes, separator: str, n_columns: int, places: dict[str, int]
) -> pl.DataFrame:
    """The columns at `places` as text, by name, and the number of each record (the header is 1).

    Blank lines are left out.
    """
    columns = [str(place) for place in range(n_columns)]
    try:
        table = pl.read_csv(
            content, separator=separator, infer_schema=False, new_columns=columns
        ).with_row_index("row", offset=2)
    except (pl.exceptions.PolarsError, OSError):  # polars unpacks what looks packed
        return _lenient_cells(path, content, separator, n_columns, places)
    table = table.with_columns(pl.col(columns).replace("", None))  # "" in quotes is empty, too
    blank = pl.all_horizontal(pl.col(column).is_null() for column in columns)
    told = table.filter(~blank)
    if told[columns[-1]].null_count() and not _all_whole(table, content, separator, columns):
        _refuse_ragged(path, content, separator, n_columns)  # polars fills short records up
    wanted = (pl.col(str(place)).alias(name) for name, place in places.items())
    return told.select(pl.col("row").cast(pl.Int64), *wanted)


def _all_whole(table: pl.DataFrame, content: bytes, separator: str, columns: list[str]) -> bool:
    """Whether all records surely have every separator, as a file with empty last cells does.

    Told by their number in the whole file, which is quick: polars refuses records with too many,
    so that none can make up for one that lacks some. Blank lines make it False.
    """
    inside = [0]  # cells hold separators only between quotes
    if b'"' in content:
        counts = pl.col(columns).str.count_matches(separator, literal=True)
        inside = list(table.select(counts.sum()).row(0))
    header = sum(name.count(separator) for name in next(_reader(content, separator)))
    between = (len(columns) - 1) * (table.height + 1)
    return content.count(separator.encode()) == between + header + sum(inside)


def _lenient_cells(
    path: Path, content: bytes, separator: str, n_columns: int, places: dict[str, int]
) -> pl.DataFrame:
    """What polars refuses, record by record: stray quotes are read, ragged records are named.

    What is wrong is looked for before anything is kept: the file may be as large as the memory.
    """
    for row, line in enumerate(io.BytesIO(content), start=1):
        decoded(line.removesuffix(b"\n"), path, row)
    _refuse_ragged(path, content, separator, n_columns)
    rows = (
        (number, *(record[place] or None for place in places.values()))
        for number, record in enumerate(_records(path, content, separator), start=1)
        if number > 1 and any(record)
    )
    schema = {"row": pl.Int64} | dict.fromkeys(places, pl.String)
    tables = [pl.DataFrame(schema=schema)]
    while some := list(islice(rows, LENIENT_ROWS)):
        tables.append(pl.DataFrame(some, schema=schema, orient="row"))
    return pl.concat(tables)


def _refuse_ragged(path: Path, content: bytes, separator: str, n_columns: int) -> None:
    """BadInputError for the first record that has not as many cells as the header.

    Its cells would stand in other columns. A record of empty cells is blank, however few it has.
    """
    for number, record in enumerate(_records(path, content, separator), start=1):
        if len(record) != n_columns and (any(record) or len(record) > n_columns):
            raise BadInputError(
                f"{path}, row {_line_of(content, separator, number)}: has {len(record)} fields, "
                f"the header has {n_columns}; mend the row, or quote the cell that holds the "
                "separator"
            )


def _records(path: Path, content: bytes, separator: str) -> Iterator[list[str]]:
    """The records of a CSV, its header first; BadInputError for what is none."""
    try:
        yield from _reader(content, separator)
    except csv.Error as problem:
        raise BadInputError(f"{path}: cannot be read as a table ({problem})") from problem


def _line_of(content: bytes, separator: str, record: int) -> int:
    """The line on which the n-th record of a CSV starts: cells may hold line breaks."""
    reader = _reader(content, separator)
    for _ in range(record - 1):
        next(reader)
    return reader.line_num + 1


def _reader(content: bytes, separator: str) -> "_csv.Reader":
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="replace", newline="")
    return csv.reader(text, delimiter=separator)
