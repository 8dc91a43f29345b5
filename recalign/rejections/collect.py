"""All pairs, shard by shard, and what is left of them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recalign.artifacts.shards import tables_in_shards
from recalign.errors import UserError
from recalign.progress import Progress, silent
from recalign.rejections.reject import DRAWN
from recalign.schemas import REJECTIONS, check_table

Reject = Callable[[np.ndarray, np.ndarray], pl.DataFrame]
"""DRAWN of some users and positions, see `reject`."""


def reject_in_shards(
    reject: Reject,
    users: np.ndarray,
    positions: np.ndarray,
    work: Path,
    shard_rows: int = 256,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """REJECTIONS in the order of `users` and `positions` [n], and rows left out by reason.

    `work` belongs to one way to reject: shards of the same users and positions found there are
    read, not made again. Raises UserError when no pair is left.
    """
    if not len(users):
        raise UserError(
            "rejections: no user has an item left that could be chosen: "
            "raise splits.reward (by time: splits.reward_share)"
        )
    parts = [slice(start, start + shard_rows) for start in range(0, len(users), shard_rows)]
    keys = [
        hashlib.sha256(users[part].tobytes() + positions[part].tobytes()).hexdigest()
        for part in parts
    ]

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for number in missing:
            part = parts[number]
            yield number, reject(users[part], positions[part])
            progress(min(part.stop, len(users)), len(users), "rejections")

    table = pl.concat(tables_in_shards(keys, compute, work, DRAWN))
    kept = check_table(table.filter(pl.col("left_out").is_null()), REJECTIONS, "rejections")
    reasons = table["left_out"].drop_nulls().value_counts()
    left_out = dict(reasons.sort("left_out").iter_rows())
    if not len(kept):
        told = ", ".join(f"{reason}: {n}" for reason, n in left_out.items())
        raise UserError(
            f"rejections: none of {len(users)} pairs can be made ({told}): lower "
            "rejections.n_rejected, raise rejections.neighbours (semantic), or choose another "
            "strategy"
        )
    return kept.rechunk(), left_out
