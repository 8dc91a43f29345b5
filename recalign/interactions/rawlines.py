"""Bytes and lines of source files, plain, gzipped or inside a zip; damage is refused by name."""

import ast
import codecs
import gzip
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
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
UNREADABLE = (  # what gzip, zipfile, its compressions and codecs raise at bytes they cannot take
    EOFError, OSError, OverflowError, RuntimeError, ValueError,
    lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
GZIP = b"\x1f\x8b"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: Path, member: str = "") -> bytes:
    """The whole file, unpacked when its name ends in .gz or .zip (then the file called `member`).

    BadInputError when damaged or empty.
    """
    content = b"".join(blocks(path, silent, member))
    if not content.strip():
        raise BadInputError(f"{path}: is empty; it needs a header or at least one row")
    return content


def blocks(path: Path, progress: Progress, member: str = "") -> Iterator[bytes]:
    """Blocks of whole lines of UTF-8, unpacked; `member` is the file to read where `path` is a zip.

    A byte order mark is left out, and UTF-16 that has one is recoded. BadInputError when the file
    cannot be opened, and when an archive ends early, is damaged or encrypted.
    """
    kind = {".gz": "gzip file ", ".zip": "zip file "}.get(path.suffix.lower(), "")
    try:
        size = path.stat().st_size
        with path.open("rb") as raw, _unpacked(path, raw, member) as packed:
            stream = _utf_8(path, packed)
            while block := stream.read(BLOCK):
                progress(min(raw.tell(), size), size, member or path.name)
                while not block.endswith(b"\n") and (rest := stream.readline()):
                    block += rest
                yield block
    except UNREADABLE as problem:
        if isinstance(problem, OSError) and problem.strerror and not kind:
            raise BadInputError(f"{path}: cannot be read ({problem.strerror})") from problem
        raise BadInputError(f"{path}: {kind}{DAMAGED} ({problem})") from problem


@contextmanager
def _unpacked(path: Path, raw: IO[bytes], member: str) -> Iterator[IO[bytes]]:
    """The bytes of a plain or gzipped file, or of `member` in any folder of a zip."""
    match path.suffix.lower():
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
        case ending if ending == ".gz" or _starts(raw, 2) == GZIP:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        case _:
            yield raw


def _utf_8(path: Path, stream: IO[bytes]) -> IO[bytes]:
    """The stream without a byte order mark, from UTF-16 if the mark says so."""
    start = _starts(stream, 4)
    if start.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    elif start.startswith(UTF_16):
        return cast(IO[bytes], codecs.EncodedFile(stream, "utf-8", "utf-16"))
    elif b"\0\0" in (start[::2], start[1::2]):
        raise BadInputError(f"{path}: is UTF-16 without a byte order mark; save it as UTF-8")
    return stream


def _starts(stream: IO[bytes], n: int) -> bytes:
    """The next n bytes, which are still to be read."""
    return cast(io.BufferedReader, stream).peek(n)[:n]


def decoded(line: bytes, path: Path, row: int) -> str:
    """UTF-8 text of one line; BadInputError names the line that is not."""
    try:
        return line.decode()
    except UnicodeDecodeError as problem:
        raise BadInputError(
            f"{path}, row {row}: byte {problem.start + 1} is not UTF-8; save the file as UTF-8"
        ) from problem


def parse_json(text: str) -> Any:
    """Strict JSON; ValueError otherwise (NaN and infinities included: they are not JSON).

    As for the fast parser 1.0 is 1, and of a name that an object has twice the first counts.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(
        text, parse_constant=refuse, parse_float=_number, object_pairs_hook=_first_of_each
    )


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def parse_literal(text: str) -> Any:
    """JSON, or a Python literal (Amazon's metadata of 2014, Steam); nothing is ever evaluated."""
    try:
        return parse_json(text)
    except ValueError:
        value = ast.literal_eval(text.strip())
    if isinstance(value, dict):  # Python 2 wrote emoji as two parts
        return {name: paired(v) if isinstance(v, str) else v for name, v in value.items()}
    return value


def cell_text(value: Any) -> str | None:
    """A JSON value as the text of a cell, as the fast parser writes it: 'a', '1' for 1.0, 'true'.

    Lists and objects are JSON again; what else a data frame holds (a date) is its own text, and a
    NaN, its gap in a column of numbers, None.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float | list | tuple | dict):
        return str(value)
    if isinstance(value, float):  # of a data frame
        if not isfinite(value):
            return None
        value = _number(str(value))
    return json.dumps(value, ensure_ascii=False, default=str)


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

    `fields` maps our column to the source's field. Blocks that the fast parser refuses or might
    misread are read line by line with `parse`, which names the broken line or accepts what is
    merely unusual. Raises BadInputError for an empty file, a broken line, or a field that no line
    has.
    """
    tables = []
    before = 0
    for block in blocks(path, progress):
        lines = block.removesuffix(b"\n").split(b"\n")
        table = _fast_cells(block, lines, fields)
        if table is None:
            table = _slow_cells(lines, path, fields, parse, before)
        tables.append(table.with_columns(pl.col("row") + before))
        before += len(lines)
    cells = pl.concat(tables) if tables else pl.DataFrame()
    if cells.height == 0:
        raise BadInputError(f"{path}: is empty; it needs one JSON object per line")
    for name, field in fields.items():
        if cells[name].null_count() == cells.height:
            raise BadInputError(f"{path}: no row has the field {field}")
    return cells


def _fast_cells(block: bytes, lines: list[bytes], fields: dict[str, str]) -> pl.DataFrame | None:
    """All lines at once, blank ones left out; None where a line is broken, or may be misread."""
    try:
        table = pl.read_ndjson(block, schema=dict.fromkeys(fields.values(), pl.String))
    except pl.exceptions.PolarsError:
        return None
    rows = pl.int_range(1, len(lines) + 1, dtype=pl.Int64, eager=True).alias("row")
    if table.height != len(lines):
        rows = rows.filter(pl.Series([bool(line.strip()) for line in lines]))
    cells = [table[field].alias(name) for name, field in fields.items()]
    # the parser writes NUL for half a surrogate pair
    halves = b"\\u" in block and any(c.str.contains("\0", literal=True).any() for c in cells)
    return None if halves or table.height != len(rows) else pl.DataFrame([rows, *cells])


def _slow_cells(
    lines: list[bytes], path: Path, fields: dict[str, str], parse: Callable[[str], Any], before: int
) -> pl.DataFrame:
    """The same line by line, `before` being the lines of earlier blocks."""
    rows: list[dict[str, Any]] = []
    for row, line in enumerate(lines, start=1):
        if line.strip():
            record = _record(line, before + row, path, parse)
            cells = {name: cell_text(record.get(field)) for name, field in fields.items()}
            for name, text in cells.items():
                if text and paired(text) != text:
                    where = f"{path}, row {before + row}, field {fields[name]}"
                    raise BadInputError(f"{where}: holds half a surrogate pair; mend the row")
            rows.append({"row": row} | cells)
    return pl.DataFrame(rows, schema={"row": pl.Int64} | dict.fromkeys(fields, pl.String))
