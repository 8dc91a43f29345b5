"""The Trainer's log as a table, and a run's figures."""

from typing import Any

import polars as pl

from recalign.training.checkpoints import best_step

CURVE = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "loss": pl.Float64,  # mean over trained tokens, nats
    "valid_loss": pl.Float64,  # mean over the tokens of the next titles, nats
    "valid_accuracy": pl.Float64,  # share of these tokens that are the most probable one
    "learning_rate": pl.Float64,
}


def curve_table(history: list[dict[str, Any]]) -> pl.DataFrame:
    """One row per logged step, training and validation side by side (columns: CURVE)."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], dict.fromkeys(CURVE) | {"step": entry["step"]})
        row["epoch"] = entry["epoch"]
        if "eval_loss" in entry:
            row["valid_loss"] = entry["eval_loss"]
            row["valid_accuracy"] = entry["eval_mean_token_accuracy"]
        elif "loss" in entry:
            row["loss"] = entry["loss"]
            row["learning_rate"] = entry["learning_rate"]
    return pl.DataFrame([rows[step] for step in sorted(rows)], schema=CURVE)


def figures(history: list[dict[str, Any]], curve: pl.DataFrame, max_steps: int) -> dict[str, Any]:
    """Validation figures at the start and at the kept checkpoint, and how the run ended."""
    start, best = (
        curve.row(by_predicate=pl.col("step") == s, named=True) for s in (0, best_step(history))
    )
    last = curve["step"].to_list()[-1]
    return {
        "steps": last,
        "best_step": best["step"],
        "best_epoch": best["epoch"],
        "stopped_early": last < max_steps,
        "valid_loss_start": start["valid_loss"],
        "valid_loss": best["valid_loss"],
        "valid_accuracy": best["valid_accuracy"],
    }
