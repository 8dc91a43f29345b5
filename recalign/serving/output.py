"""The table of recommendations where the user wants it: whole, or not there yet."""

import os
import shutil
import uuid
from pathlib import Path

from recalign.artifacts.digests import whole_file
from recalign.errors import UserError
from recalign.parquet import scan_parquet

ENDINGS = (".parquet", ".csv")


def check_output(name: str | Path, given: dict[str, str]) -> None:
    """UserError for an ending that is not written, a folder that cannot be written to, and a file
    that is read: `given` are those by setting.
    """
    path = Path(name)
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: recommendations are written as {' or '.join(ENDINGS)}")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    final = _final(path)
    for setting, read in given.items():
        if final == _final(Path(read)) or (final.exists() and _is_same(final, Path(read))):
            raise UserError(
                f"{path} is the file that {setting} reads, and would be replaced by the table: "
                "name another output"
            )
    there = next(place for place in final.parents if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written to" if there.is_dir() else "is a file, not a folder"
        raise UserError(f"{path} cannot be written: {there} {why}")


def write_output(source: Path, name: str | Path) -> Path:
    """Write the Parquet table at `source` to a path, where the old file stays until it is whole.

    A link stays, and the file that it leads to is written. UserError where it cannot be written.
    """
    path = Path(name)
    final = _final(path)
    try:
        with whole_file(final, uuid.uuid4().hex) as file:  # two may write the same at once
            if path.suffix == ".csv":
                scan_parquet(source).sink_csv(file)
            else:
                with source.open("rb") as table:
                    shutil.copyfileobj(table, file)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return final


def _final(path: Path) -> Path:
    """Where a path leads; UserError for links in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} leads nowhere: {error}") from error


def _is_same(final: Path, read: Path) -> bool:
    return read.exists() and final.samefile(read)
