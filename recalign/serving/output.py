"""The table of recommendations where the user wants it: whole, or not there yet."""

import os
import shutil
import uuid
from pathlib import Path

from recalign.artifacts.digests import whole_file
from recalign.errors import UserError
from recalign.parquet import scan_parquet

ENDINGS = (".parquet", ".csv")


def check_output(path: Path) -> None:
    """UserError for an ending that is not written, and for a folder that cannot be written to."""
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: recommendations are written as {' or '.join(ENDINGS)}")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    there = next(place for place in path.absolute().parents if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written to" if there.is_dir() else "is a file, not a folder"
        raise UserError(f"{path} cannot be written: {there} {why}")


def write_output(source: Path, path: Path) -> Path:
    """Write the Parquet table at `source` to `path`, where the old file stays until it is whole.

    UserError where it cannot be written.
    """
    try:
        with whole_file(path, uuid.uuid4().hex) as file:  # two may write the same at once
            if path.suffix == ".csv":
                scan_parquet(source).sink_csv(file)
            else:
                with source.open("rb") as table:
                    shutil.copyfileobj(table, file)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path.resolve()
