"""All rows, shard by shard: finished shards are files that outlive a killed run."""

from pathlib import Path

import numpy as np
import polars as pl

from recalign.config import RejectionsStage
from recalign.errors import UserError
from recalign.progress import Progress, silent
from recalign.rejections.reject import Sources, reject
from recalign.schemas import REJECTIONS, check_table


def reject_in_shards(
    config: RejectionsStage,
    sources: Sources,
    users: np.ndarray,
    positions: np.ndarray,
    work: Path,
    shard_rows: int = 256,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """REJECTIONS in the order of `users` and `positions` [n], and rows left out by reason.

    `work` belongs to this call alone: shards found there are read, not made again. Raises
    UserError when no pair is left.
    """
    if not len(users):
        raise UserError(
            "rejections: no user has an item between its history and its validation window: "
            "raise splits.fit or splits.reward"
        )
    shards = []
    for start in range(0, len(users), shard_rows):
        rows = slice(start, start + shard_rows)
        path = work / f"rejections-{start}-{len(users[rows])}.parquet"
        if not path.exists():
            draft = path.with_suffix(".draft")
            reject(config, sources, users[rows], positions[rows]).write_parquet(draft)
            draft.replace(path)
        shards.append(pl.read_parquet(path))
        progress(start + len(users[rows]), len(users), "rejections")
    table = pl.concat(shards)
    kept = check_table(table.filter(pl.col("left_out").is_null()), REJECTIONS, "rejections")
    reasons = table["left_out"].drop_nulls().value_counts()
    left_out = dict(reasons.sort("left_out").iter_rows())
    if not len(kept):
        told = ", ".join(f"{reason}: {n}" for reason, n in left_out.items())
        raise UserError(
            f"rejections: none of {len(users)} pairs can be made ({told}): lower "
            "rejections.n_rejected, or choose another strategy"
        )
    return kept.rechunk(), left_out
