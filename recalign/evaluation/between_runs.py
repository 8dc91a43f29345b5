"""Two runs' results side by side, row by row, in one metric."""

from dataclasses import dataclass

import polars as pl

from recalign.evaluation.intervals import Measured, mean_interval
from recalign.metric_columns import Metric, told_intervals

N_RESAMPLES = 2000


@dataclass(frozen=True)
class RunResults:
    """What a run's evaluation holds: RESULTS, and ROWS_PER_USER, the values behind it."""

    results: pl.DataFrame
    per_user: pl.DataFrame


@dataclass(frozen=True)
class RowBetweenRuns:
    """One row that both runs have; each estimate with its 95 % interval (mean, low, high)."""

    row: str
    first: Measured
    second: Measured
    difference: Measured | None
    """Second minus first, paired by user; None: the runs judged different users or cases."""


def rows_between_runs(
    first: RunResults, second: RunResults, metric: Metric, paired: bool
) -> list[RowBetweenRuns]:
    """The rows of the same label, in the order of the first; `paired`: users mean the same."""
    old, new = (_by_row(one.results, metric) for one in (first, second))
    return [
        RowBetweenRuns(
            row, old[row], new[row], _difference(first, second, metric, row) if paired else None
        )
        for row in old
        if row in new
    ]


def _by_row(results: pl.DataFrame, metric: Metric) -> dict[str, Measured]:
    lines = metric.lines(told_intervals(results)).select("row", "mean", "low", "high")
    return {row: (mean, low, high) for row, mean, low, high in lines.iter_rows()}


def _difference(first: RunResults, second: RunResults, metric: Metric, row: str) -> Measured | None:
    """Of the users whom both runs judged, and None where there is none."""
    old, new = (
        metric.lines(one.per_user).filter(pl.col("row") == row).select("user_index", "value")
        for one in (first, second)
    )
    both = old.join(new, on="user_index", suffix="_new").drop_nulls().sort("user_index")
    if both.is_empty():
        return None
    values = (both["value_new"] - both["value"]).to_numpy()
    return mean_interval(values, N_RESAMPLES, seed=0)
