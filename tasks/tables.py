"""The tables nearly every stage starts from, read and checked."""

from dataclasses import dataclass

import polars as pl

from recalign.artifacts.store import Artifact
from recalign.schemas import INTERACTIONS, ITEMS, WINDOWS, read_table
from recalign.sequences import Sequences
from recalign.splits.guard import Protocol


@dataclass(frozen=True)
class Tables:
    """Interactions, items, windows, and the sequences they make."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    windows: pl.DataFrame
    sequences: Sequences
    protocol: Protocol


def read_tables(interactions: Artifact, splits: Artifact) -> Tables:
    """Open the two artifacts as typed tables."""
    taken = read_table(interactions.path("interactions.parquet"), INTERACTIONS)
    items = read_table(interactions.path("items.parquet"), ITEMS)
    windows = read_table(splits.path("windows.parquet"), WINDOWS)
    protocol = splits.manifest.config["protocol"]
    return Tables(taken, items, windows, Sequences.of(taken, items.height), protocol)
