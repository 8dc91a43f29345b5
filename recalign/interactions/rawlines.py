"""Bytes and lines of source files, plain, gzipped or inside a zip; damage is refused by name."""

import ast
import gzip
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from recalign.artifacts.names import is_inside
from recalign.errors import BadInputError
from recalign.interactions.titles import paired
from recalign.progress import Progress, silent

BLOCK = 1 << 22
"""Bytes of unpacked text parsed at once: few enough to stay in the cache."""
DAMAGED = "is damaged or cut short; delete it and fetch it again"


def read_bytes(path: Path, member: str = "") -> bytes:
    """The whole file, unpacked when its name ends in .gz or .zip (then the file called `member`).

    BadInputError when damaged or empty.
    """
    content = b"".join(blocks(path, silent, member))
    if not content.strip():
        raise BadInputError(f"{path}: is empty; it needs a header or at least one row")
    return content


def blocks(path: Path, progress: Progress, member: str = "") -> Iterator[bytes]:
    """Blocks of whole lines, unpacked; `member` is the file to read where `path` is a zip.

    BadInputError when an archive ends early or is damaged.
    """
    size = path.stat().st_size
    kind = "gzip" if path.suffix == ".gz" else "zip"
    try:
        with path.open("rb") as raw, _unpacked(path, raw, member) as stream:
            while block := stream.read(BLOCK):
                progress(min(raw.tell(), size), size, member or path.name)
                yield block + stream.readline()
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as problem:
        raise BadInputError(f"{path}: {kind} file {DAMAGED} ({problem})") from problem


@contextmanager
def _unpacked(path: Path, raw: IO[bytes], member: str) -> Iterator[IO[bytes]]:
    """The bytes of a plain or gzipped file, or of `member` in any folder of a zip."""
    match path.suffix:
        case ".gz":
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        case ".zip":
            with zipfile.ZipFile(raw) as archive:
                names = filter(is_inside, archive.namelist())
                named = [name for name in names if name.rpartition("/")[2] == member]
                if not named:
                    raise BadInputError(
                        f"{path}: holds no {member}; is it the publisher's own zip?"
                    )
                with archive.open(named[0]) as stream:
                    yield stream
        case _:
            yield raw


def decoded(line: bytes, path: Path, row: int) -> str:
    """UTF-8 text of one line; BadInputError names the line that is not."""
    try:
        return line.decode()
    except UnicodeDecodeError as problem:
        raise BadInputError(
            f"{path}, row {row}: byte {problem.start + 1} is not UTF-8; save the file as UTF-8"
        ) from problem


def parse_json(text: str) -> Any:
    """Strict JSON; ValueError otherwise (NaN and infinities included: they are not JSON)."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def parse_literal(text: str) -> Any:
    """JSON, or a Python literal (Amazon's metadata of 2014, Steam); nothing is ever evaluated."""
    try:
        return parse_json(text)
    except ValueError:
        return ast.literal_eval(text.strip())


def records(
    path: Path, parse: Callable[[str], Any], wanted: Callable[[bytes], bool], progress: Progress
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is `wanted`; blank lines are passed over.

    Raises BadInputError at a line that is no object.
    """
    before = 0
    for block in blocks(path, progress):
        lines = block.removesuffix(b"\n").split(b"\n")
        for row, line in enumerate(lines, start=before + 1):
            if line.strip() and wanted(line):
                yield row, _record(line, row, path, parse)
        before += len(lines)


def _record(line: bytes, row: int, path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    text = decoded(line, path, row)
    try:
        value = parse(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as problem:
        raise BadInputError(
            f"{path}, row {row}: the line is broken ({problem}); mend or remove it"
        ) from problem
    if not isinstance(value, dict):
        raise BadInputError(f"{path}, row {row}: is not an object with named fields")
    return value


def json_cells(
    path: Path, fields: dict[str, str], parse: Callable[[str], Any], progress: Progress
) -> pl.DataFrame:
    """The named fields of every line as text columns, with `row` (1-based line).

    `fields` maps our column to the source's field. Blocks that the fast parser refuses, or in
    which it skips blank lines, are read line by line with `parse`, which names the broken line or
    accepts what is merely unusual. Raises BadInputError for an empty file, a broken
    line, or a field that no line has.
    """
    schema: dict[str, Any] = dict.fromkeys(fields.values(), pl.String)
    tables = []
    before = 0
    for block in blocks(path, progress):
        lines = block.removesuffix(b"\n").split(b"\n")
        table = _fast_cells(block, schema)
        if table is None or table.height != len(lines):
            table = _slow_cells(lines, before, path, schema, parse)
        else:
            table = table.select(pl.int_range(pl.len()).alias("row") + before + 1, *schema)
        tables.append(table)
        before += len(lines)
    cells = pl.concat(tables) if tables else pl.DataFrame()
    if cells.height == 0:
        raise BadInputError(f"{path}: is empty; it needs one JSON object per line")
    for field in schema:
        if cells[field].null_count() == cells.height:
            raise BadInputError(f"{path}: no row has the field {field}")
    return cells.select("row", *(pl.col(field).alias(name) for name, field in fields.items()))


def _fast_cells(block: bytes, schema: dict[str, Any]) -> pl.DataFrame | None:
    """All lines at once, blank ones left out; None where a line is broken."""
    try:
        return pl.read_ndjson(block, schema=schema)
    except pl.exceptions.ComputeError:
        return None


def _slow_cells(
    lines: list[bytes], before: int, path: Path, schema: dict[str, Any], parse: Callable[[str], Any]
) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for row, line in enumerate(lines, start=before + 1):
        if line.strip():
            values = _record(line, row, path, parse)
            cells = {name: values.get(name) for name in schema}
            text = {
                name: None if cell is None else paired(str(cell)) for name, cell in cells.items()
            }
            rows.append({"row": row} | text)
    return pl.DataFrame(rows, schema={"row": pl.Int64} | schema)
