"""Tables made shard by shard: what is finished lies in a work folder and is not made again."""

from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
from pyarrow.parquet import ParquetWriter

from recalign.artifacts.digests import sync, whole_file
from recalign.errors import BadInputError
from recalign.parquet import read_parquet
from recalign.schemas import Schema, check_table

_KEY = "recalign.shard"  # in the Parquet file's metadata: what the shard was made from

Compute = Callable[[list[int]], Iterable[tuple[int, pl.DataFrame]]]
"""Makes the shards of these numbers and gives each as soon as it is made, in any order."""


def tables_in_shards(
    keys: list[str], compute: Compute, work: Path, schema: Schema
) -> list[pl.DataFrame]:
    """The tables of all shards; see `files_of_shards`."""
    return [read_parquet(path) for path in files_of_shards(keys, compute, work, schema)]


def files_of_shards(keys: list[str], compute: Compute, work: Path, schema: Schema) -> list[Path]:
    """The files of all shards; `keys` say what decides each.

    Shard n becomes work/shard-NNNNN.parquet; one that is there, whole, and of its key is read
    instead. So a killed run loses only the shards that were being made.
    """
    paths = [_path(work, number) for number in range(len(keys))]
    places = list(zip(paths, keys, strict=True))
    missing = [n for n, (path, key) in enumerate(places) if _read(path, key, schema) is None]
    if missing:
        for number, table in compute(missing):
            _write(table, paths[number], keys[number])
    return paths


def keys_of_shards(work: Path) -> list[str]:
    """The keys of the shards that lie there, up to the first that does not or cannot be read."""
    found: list[str] = []
    while (key := _key(_path(work, len(found)))) is not None:
        found.append(key)
    return found


def write_joined(paths: list[Path], path: Path, schema: Schema) -> int:
    """One Parquet table of all shards, one after the other in memory; returns its rows."""
    n_rows, types = 0, pl.DataFrame(schema=schema).to_arrow().schema
    with ParquetWriter(path, types, compression="zstd") as file:
        for shard in paths:
            table = check_table(read_parquet(shard), schema, str(shard))
            file.write_table(table.to_arrow())
            n_rows += table.height
    return n_rows


def _path(work: Path, number: int) -> Path:
    return work / f"shard-{number:05d}.parquet"


def _key(path: Path) -> str | None:
    """What a shard was made from; None when it is missing or torn."""
    try:
        return pl.read_parquet_metadata(path).get(_KEY)
    except (OSError, pl.exceptions.PolarsError):
        return None


def _read(path: Path, key: str, schema: Schema) -> pl.DataFrame | None:
    """The shard's table; None when it is missing, torn, or made from something else."""
    if _key(path) != key:
        return None
    try:
        return check_table(read_parquet(path), schema, str(path))
    except (OSError, pl.exceptions.PolarsError, BadInputError):
        return None


def _write(table: pl.DataFrame, path: Path, key: str) -> None:
    """Into a file of that name that is always whole."""
    with whole_file(path) as file:
        table.write_parquet(file, compression="zstd", metadata={_KEY: key})
    sync(path.parent)
