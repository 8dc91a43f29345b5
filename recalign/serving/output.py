"""The table of recommendations where the user wants it: whole, or not there yet."""

import shutil
from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import whole_file
from recalign.errors import UserError
from recalign.schemas import SERVING

ENDINGS = (".parquet", ".csv")


def check_output(path: Path) -> None:
    """UserError for an ending that is not written, and for a folder that cannot be written to."""
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: recommendations are written as {' or '.join(ENDINGS)}")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")


def write_output(made: Artifact, path: Path) -> Path:
    """Write the table to `path`; until it is whole and on disk, the old file stays there."""
    source = made.path(SERVING.file)
    try:
        with whole_file(path) as file:
            if path.suffix == ".csv":
                pl.scan_parquet(source).sink_csv(file)
            else:
                with source.open("rb") as table:
                    shutil.copyfileobj(table, file)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path.resolve()
