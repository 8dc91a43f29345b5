"""Parquet files by their very names: to polars a `[`, `*` or `?` in a path is a pattern."""

from pathlib import Path

import polars as pl


def read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """The table at `path`, or these columns of it; raises what polars does."""
    return pl.read_parquet(path, columns=columns, glob=False)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """The table at `path`, of which only what is asked for is read."""
    return pl.scan_parquet(path, glob=False)
