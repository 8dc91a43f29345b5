"""Columns of a CSV, TSV, JSONL or Parquet file with the number of each row, by file ending."""

import csv
import io
from functools import partial
from pathlib import Path

import polars as pl

from recalign.errors import BadInputError
from recalign.interactions.rawlines import decoded, json_cells, parse_json, read_bytes
from recalign.interactions.rawtables import Origin
from recalign.progress import Progress

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ROW = "__row__"


def ending(path: Path) -> str:
    """'.csv', '.tsv', '.jsonl' or '.parquet', without a '.gz'; BadInputError for others."""
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if kind not in (*SEPARATORS, ".jsonl", ".parquet") or path.name.endswith(".parquet.gz"):
        raise BadInputError(
            f"{path}: unknown kind of file; name it .csv, .tsv, .jsonl (each also .gz) or .parquet"
        )
    return kind


def read_cells(
    path: Path,
    fields: dict[str, str],
    progress: Progress,
    advice: str = "name yours in interactions.files",
) -> tuple[pl.DataFrame, Origin]:
    """The columns of `fields` (ours to the file's) under our names, with `row`; at least one row.

    Cells of text formats are text. Raises BadInputError for damage and missing columns, with this
    advice.
    """
    kind = ending(path)
    if kind == ".jsonl":
        return json_cells(path, fields, parse_json, progress), Origin(path, fields)
    progress(0, 1, path.name)
    if kind == ".parquet":
        table, origin = _read_parquet(path), Origin(path, fields)
    else:
        content = read_bytes(path)
        table = _read_csv(path, content, SEPARATORS[kind])
        origin = Origin(path, fields, partial(_line_of, content, SEPARATORS[kind]))
    missing = [field for field in fields.values() if field not in table.columns]
    if missing:
        present = ", ".join(column for column in table.columns if column != ROW)
        raise BadInputError(
            f"{path}: has no column {', '.join(missing)}; its columns are {present}; {advice}"
        )
    columns = [pl.col(field).alias(name) for name, field in fields.items()]
    cells = table.select(pl.col(ROW).cast(pl.Int64).alias("row"), *columns)
    if cells.height == 0:
        raise BadInputError(f"{path}: has columns but no row")
    progress(1, 1, path.name)
    return cells, origin


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path).with_row_index(ROW, offset=1)
    except pl.exceptions.ComputeError as problem:
        raise BadInputError(
            f"{path}: is damaged, cut short, or no Parquet file ({problem})"
        ) from problem


def _read_csv(path: Path, content: bytes, separator: str) -> pl.DataFrame:
    """All cells as text, with the number of the record (the header is 1); blank lines left out."""
    try:
        table = pl.read_csv(
            content, separator=separator, infer_schema=False, row_index_name=ROW, row_index_offset=2
        )
    except pl.exceptions.ComputeError:
        table = _read_csv_leniently(path, content, separator)
    cells = [pl.col(column) for column in table.columns if column != ROW]
    return table.filter(~pl.all_horizontal(cell.is_null() for cell in cells))


def _read_csv_leniently(path: Path, content: bytes, separator: str) -> pl.DataFrame:
    """What polars refuses, record by record: stray quotes are read, ragged records are named."""
    lines = content.removesuffix(b"\n").split(b"\n")
    text = [decoded(line, path, row) + "\n" for row, line in enumerate(lines, start=1)]
    text[0] = text[0].removeprefix("\ufeff")
    reader = csv.reader(text, delimiter=separator)
    header = next(reader)
    rows: list[list[str | int | None]] = []
    for number, record in enumerate(reader, start=2):
        if record and len(record) != len(header):
            raise BadInputError(
                f"{path}, row {reader.line_num}: has {len(record)} fields, the header has "
                f"{len(header)}; mend the row, or quote the cell that holds the separator"
            )
        if record:
            rows.append([number, *(cell or None for cell in record)])
    columns = {ROW: pl.Int64} | dict.fromkeys(header, pl.String)
    return pl.DataFrame(rows, schema=columns, orient="row")


def _line_of(content: bytes, separator: str, record: int) -> int:
    """The line on which the n-th record of a CSV starts: cells may hold line breaks."""
    text = io.StringIO(content.decode(errors="replace"), newline="")
    reader = csv.reader(text, delimiter=separator)
    for _ in range(record - 1):
        next(reader)
    return reader.line_num + 1
