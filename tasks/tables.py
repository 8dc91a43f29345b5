"""The tables nearly every stage starts from, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.errors import UserError
from recalign.interactions.userlist import read_user_ids
from recalign.schemas import (
    APPEAL,
    INTERACTIONS,
    ITEMLESS_USERS,
    ITEMS,
    TRUTH,
    USERS,
    WINDOWS,
    read_table,
)
from recalign.sequences import Sequences
from recalign.serving.rows import WhyNone, asked_users
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


def read_asked_users(histories: Artifact, files: Mapping[str, list[Path]]) -> pl.DataFrame:
    """Whom to recommend something: all users, or those of the file `users` (see `asked_users`)."""
    itemless = histories.path(ITEMLESS_USERS.file)  # a run's own interactions have none
    foreign = read_table(itemless, ITEMLESS_USERS) if itemless.exists() else None
    users = USERS.read(histories)
    given = [read_user_ids(path, users["user_id"]) for path in files.get("users", [])]
    without = pl.Series("user_id", [], pl.String) if foreign is None else foreign["user_id"]
    asked = asked_users(given[0] if given else None, users, without)
    unknown: WhyNone = "no history"
    if given and (asked["why_none"] == unknown).fill_null(value=False).all():
        name, known = given[0][0], users["user_id"][0]
        raise UserError(
            f"{files['users'][0]}: none of its {len(given[0])} ids is a user of this run: it has "
            f"{name!r} first, the run knows ids like {known!r}"
        )
    return asked


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
