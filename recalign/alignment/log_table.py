"""The Trainer's log as a table, and a run's figures."""

from typing import Any

import polars as pl

from recalign.training.checkpoints import best_step

LOG = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "loss": pl.Float64,
    "margin": pl.Float64,  # mean of beta h
    "accuracy": pl.Float64,  # share of pairs with h > 0
    "chosen_log_prob": pl.Float64,  # mean over pairs, summed over tokens, nats
    "rejected_log_prob": pl.Float64,
    "chosen_drift": pl.Float64,  # mean log-probability above the reference's, nats
    "rejected_drift": pl.Float64,
    "held_out_loss": pl.Float64,
    "held_out_margin": pl.Float64,
    "held_out_accuracy": pl.Float64,
    "held_out_chosen_drift": pl.Float64,
    "held_out_rejected_drift": pl.Float64,
    "learning_rate": pl.Float64,
}


def log_table(history: list[dict[str, Any]], beta: float) -> pl.DataFrame:
    """One row per logged step, training and held-out figures side by side (columns: LOG)."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], dict.fromkeys(LOG) | {"step": entry["step"]})
        row["epoch"] = entry["epoch"]
        if "eval_loss" in entry:
            row["held_out_loss"] = entry["eval_loss"]
            row["held_out_margin"] = entry["eval_rewards/margins"]
            row["held_out_accuracy"] = entry["eval_rewards/accuracies"]
            row["held_out_chosen_drift"] = entry["eval_rewards/chosen"] / beta
            row["held_out_rejected_drift"] = entry["eval_rewards/rejected"] / beta
        elif "loss" in entry:
            row["loss"] = entry["loss"]
            row["margin"] = entry["rewards/margins"]
            row["accuracy"] = entry["rewards/accuracies"]
            row["chosen_log_prob"] = entry["logps/chosen"]
            row["rejected_log_prob"] = entry["logps/rejected"]
            row["chosen_drift"] = entry["rewards/chosen"] / beta
            row["rejected_drift"] = entry["rewards/rejected"] / beta
            row["learning_rate"] = entry["learning_rate"]
    return pl.DataFrame([rows[step] for step in sorted(rows)], schema=LOG)


def figures(history: list[dict[str, Any]], log: pl.DataFrame, max_steps: int) -> dict[str, Any]:
    """Held-out figures at the start and at the kept checkpoint, and how the run ended."""
    start, best = (
        log.row(by_predicate=pl.col("step") == s, named=True) for s in (0, best_step(history))
    )
    last = log["step"].to_list()[-1]
    return {
        "steps": last,
        "best_step": best["step"],
        "stopped_early": last < max_steps,
        "held_out_loss_start": start["held_out_loss"],
        "held_out_loss": best["held_out_loss"],
        "held_out_accuracy": best["held_out_accuracy"],
        "held_out_margin": best["held_out_margin"],
        "chosen_drift": best["held_out_chosen_drift"],
        "rejected_drift": best["held_out_rejected_drift"],
    }
