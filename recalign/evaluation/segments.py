"""Segments of users, cut by what is known before the test window, and results within each."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recalign.evaluation.result_table import ResultRow, resample
from recalign.schemas import SEGMENTS
from recalign.sequences import Sequences

KINDS = {
    "taste": ("niche", "between", "mainstream"),
    "history": ("short", "medium", "long"),
    "targets": ("cold", "warm"),
    "time": ("early", "middle", "late"),
}
"""What users are cut by, and the names of the parts, of equal sizes but for ties.

taste: mean log(1 + popularity) of all a user took before the test; history: how much that is;
targets: the same mean of the items to be foreseen, whose popularity is of before; time: when the
user's test begins, where all users are cut at the same moments.
"""


def user_segments(
    sequences: Sequences,
    users: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    popularity: np.ndarray,
    timestamps: np.ndarray | None = None,
) -> dict[tuple[str, str], np.ndarray]:
    """The users of each (kind, part) that anyone is in; all arrays int64 [U].

    starts and ends: the test window of each user; popularity [I+1]: interactions in history
    windows; timestamps: of all interactions, in the order of `sequences.items`; None leaves the
    kind "time" out.
    """
    logs = np.log1p(popularity)
    before = sequences.slices(users, np.zeros_like(starts), starts)
    window = sequences.slices(users, starts, ends)
    values = {
        "taste": np.array([logs[items].mean() for items in before]),
        "history": starts,
        "targets": np.array([logs[items].mean() for items in window]),
    }
    if timestamps is not None:
        values["time"] = timestamps[sequences.offsets[users] + starts]
    return {
        (kind, name): users[part == place]
        for kind, value in values.items()
        for part in [_parts(value, len(KINDS[kind]))]
        for place, name in enumerate(KINDS[kind])
        if (part == place).any()
    }


def segment_results(
    per_user: pl.DataFrame,
    rows: Sequence[ResultRow],
    segments: dict[tuple[str, str], np.ndarray],
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """SEGMENTS: RESULTS of the rows among the users of each segment; per_user: ROWS_PER_USER."""
    told = []
    for (kind, name), users in segments.items():
        own = per_user.filter(pl.col("user_index").is_in(users.tolist()))
        results = resample(own, n_resamples, seed).results(rows)
        told.append(results.select(pl.lit(kind).alias("kind"), pl.lit(name).alias("segment"), "*"))
    return pl.concat(told).select(list(SEGMENTS))


def _parts(values: np.ndarray, n_parts: int) -> np.ndarray:
    """The part of each value, int64 [U]: quantiles cut them, and equal values stay together."""
    edges = np.quantile(values, np.arange(1, n_parts) / n_parts)
    return np.searchsorted(edges, values, side="left")
