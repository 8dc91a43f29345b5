"""Rows that are kept under a key: what one run has worked out, no later run works out again."""

import uuid
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recalign.artifacts.digests import whole_file
from recalign.artifacts.fingerprint import fingerprint
from recalign.errors import BadInputError
from recalign.parquet import read_parquet
from recalign.schemas import Schema, check_table

KEY = "key"  # column of digests of all that decides a row
BY_LLM = "by-llm"  # in the cache: a folder per LLM, which goes when the LLM does


def folder_of(
    cache: Path, llm: str, what: str, made_by: Mapping[str, object], version: int
) -> Path:
    """Where rows are kept that an LLM made under these settings, for this version of a stage.

    llm: its artifact's fingerprint, or the digest of its content, which several may share. A stage
    whose output means something new, and has a higher version, must not go on with the old rows.
    """
    newer = {"version": version} if version > 1 else {}  # the first rows were kept without one
    return cache / BY_LLM / llm / f"{what}-{fingerprint({**made_by, **newer})}"


class KeptRows:
    """A table with a key, in a folder that may be deleted at any time.

    Parts are only ever added, each in one rename under a name of its own: readers never see half a
    part and writers never wait. A part that cannot be read is left out. Of several rows with one
    key, which two runs may have made at the same time, one counts.
    """

    def __init__(self, folder: Path, columns: Schema) -> None:
        self._folder, self._schema = folder, {KEY: pl.String, **columns}
        parts = [self._read(path) for path in sorted(folder.glob("*.parquet"))]
        self._rows = pl.concat([pl.DataFrame(schema=self._schema), *parts])

    def _read(self, path: Path) -> pl.DataFrame:
        try:
            return check_table(read_parquet(path), self._schema, str(path))
        except (OSError, pl.exceptions.PolarsError, BadInputError):
            return pl.DataFrame(schema=self._schema)

    def of(self, keys: pl.Series) -> pl.DataFrame:
        """The rows of those of `keys` (distinct) that are kept, in any order."""
        wanted = keys.rename(KEY).to_frame()
        return self._rows.join(wanted, on=KEY, how="semi").unique(KEY)

    def add(self, rows: pl.DataFrame) -> None:
        """Keep these rows; they are on disk when this returns."""
        rows = check_table(rows, self._schema, "rows to keep")
        with whole_file(self._folder / f"{uuid.uuid4().hex}.parquet") as file:
            rows.write_parquet(file, compression="zstd")
        self._rows = self._rows.vstack(rows)
