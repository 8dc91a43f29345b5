"""The tables nearly every stage starts from, read and checked."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.schemas import APPEAL, INTERACTIONS, ITEMS, TRUTH, WINDOWS
from recalign.sequences import Sequences
from recalign.splits.guard import Protocol, check_fit
from recalign.world.utility import TrueWorld, rejected_preferred


@dataclass(frozen=True)
class Tables:
    """Interactions, items, windows, and the sequences they make."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    windows: pl.DataFrame
    sequences: Sequences
    protocol: Protocol

    def before(self, stage: str, stops: np.ndarray) -> Sequences:
        """What a stage fits on: every user's items before position stops [U], which is proved."""
        stops = stops.astype(np.int64)
        seen = self.sequences.before(stops)
        check_fit(stage, np.arange(seen.n_users), seen.lengths, seen, self.interactions, stops)
        return seen


def read_tables(interactions: Artifact, splits: Artifact) -> Tables:
    """Open the two artifacts as typed tables."""
    taken = INTERACTIONS.read(interactions)
    items = ITEMS.read(interactions)
    windows = WINDOWS.read(splits)
    protocol = splits.manifest.config["protocol"]
    return Tables(taken, items, windows, Sequences.of(taken, items.height), protocol)


def true_smoothing(
    interactions: Artifact, items: pl.DataFrame, rejections: pl.DataFrame
) -> np.ndarray | None:
    """The synthetic world's P(rejected preferred) of the REJECTIONS, [n, K]; else None."""
    if interactions.manifest.config["source"] != "synthetic":
        return None
    noise = interactions.manifest.config["synthetic"]["noise"]
    return rejected_preferred(
        TrueWorld(TRUTH.read(interactions), items, APPEAL.read(interactions), noise),
        rejections["user_index"].to_numpy(),
        rejections["position"].to_numpy(),
        rejections["chosen"].to_numpy(),
        rejections["rejected"].list.to_array(rejections["rejected"].list.len()[0]).to_numpy(),
    )
