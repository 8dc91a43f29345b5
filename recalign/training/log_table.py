"""The Trainer's log as a table, and how a run ended."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from recalign.training.checkpoints import best_step

LOG = "log.parquet"  # of an alignment


def log_table(history: list[dict[str, Any]], entries: Mapping[str, str]) -> pl.DataFrame:
    """One row per logged step, training and held-out figures side by side.

    Columns: step, epoch, and those of `entries`: name of the column -> name in the Trainer's log.
    """
    schema = {"step": pl.Int64} | dict.fromkeys(["epoch", *entries], pl.Float64)
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], dict.fromkeys(schema) | {"step": entry["step"]})
        row["epoch"] = entry["epoch"]
        row |= {column: entry[name] for column, name in entries.items() if name in entry}
    return pl.DataFrame([rows[step] for step in sorted(rows)], schema=schema)


def ending(
    history: list[dict[str, Any]], log: pl.DataFrame, max_steps: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """How the run ended, and the log's rows of its start and of the checkpoint that is kept."""
    start, best = (
        log.row(by_predicate=pl.col("step") == s, named=True) for s in (0, best_step(history))
    )
    last = log["step"].to_list()[-1]
    told = {
        "steps": last,
        "best_step": best["step"],
        "best_epoch": best["epoch"],
        "stopped_early": last < max_steps,
        "planned_steps": max_steps,
    }
    return told, start, best
