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
targets: the same mean of the items that a row is judged by, whose popularity is of before; time:
when the user's test begins, where all users are cut at the same moments.
"""


def user_segments(
    sequences: Sequences,
    users: np.ndarray,
    starts: np.ndarray,
    targets: Sequence[np.ndarray],
    popularity: np.ndarray,
    timestamps: np.ndarray | None = None,
) -> dict[tuple[str, str], np.ndarray]:
    """The users of each (kind, part) that anyone is in; all arrays int64 [U].

    A kind in which all users are the same is left out. starts: where the test window of each user
    begins; targets: the items that each is judged by, U arrays, and who has none is in no part of
    that kind; popularity [I+1]: interactions in history windows; timestamps: of all interactions,
    in the order of `sequences.items`; None leaves the kind "time" out.
    """
    logs = np.log1p(popularity)
    before = sequences.slices(users, np.zeros_like(starts), starts)
    judged = users[np.array([len(items) > 0 for items in targets], dtype=bool)]
    values = {
        "taste": (users, np.array([logs[items].mean() for items in before])),
        "history": (users, starts),
        "targets": (judged, np.array([logs[items].mean() for items in targets if len(items)])),
    }
    if timestamps is not None:
        values["time"] = (users, timestamps[sequences.offsets[users] + starts])
    return {
        (kind, name): owners[part == place]
        for kind, (owners, value) in values.items()
        if (value != value[:1]).any()
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
    kinds = {name: kind() if isinstance(kind, type) else kind for name, kind in SEGMENTS.items()}
    told = [pl.DataFrame(schema=kinds)]  # of no segment, too, the table has its columns
    for (kind, name), users in segments.items():
        own = per_user.filter(pl.col("user_index").is_in(users.tolist()))
        results = resample(own, n_resamples, seed).results(rows)
        own = results.with_columns(pl.lit(kind).alias("kind"), pl.lit(name).alias("segment"))
        told.append(own.select(list(SEGMENTS)))
    return pl.concat(told)


def _parts(values: np.ndarray, n_parts: int) -> np.ndarray:
    """The part of each value, int64 [U]: quantiles cut them, and equal values stay together.

    An edge is of the part below it, but the largest value, held by many, is the uppermost part:
    else the longest histories of all would be in the part "short".
    """
    edges = np.quantile(values, np.arange(1, n_parts) / n_parts)
    parts = np.searchsorted(edges, values, side="left")
    return np.where(values == values.max(), n_parts - 1, parts)
