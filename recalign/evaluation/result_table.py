"""The result table: every row and metric with its interval and its difference to a base row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.evaluation.intervals import TAILS, pooled_means
from recalign.evaluation.per_user import user_columns
from recalign.evaluation.rows import ResultRow
from recalign.metric_columns import Metric
from recalign.schemas import RESULTS

SHARES = {
    "semantic hallucination": ("semantic error", "wrong"),
    "popular hallucination": ("popular error", "wrong"),
}
"""Measures that are the ratio of two others' means, as users differ in what the share is of."""


@dataclass(frozen=True)
class Resampled:
    """Means over users of every row's metrics, and the same of users drawn anew.

    places: the column [C] of each (label of a row, metric); means float64 [C]; draws float64
    [n_resamples, C]: all columns see the same drawn users, so that each difference is paired.
    """

    places: Mapping[tuple[str, Metric], int]
    means: np.ndarray
    draws: np.ndarray
    n_users: int

    def results(self, rows: Sequence[ResultRow]) -> pl.DataFrame:
        """RESULTS of these rows, each compared in the metrics that its base row has as well."""
        lines = [
            (*row.columns, *metric, *self._mean(place), *self._paired(row, metric), self.n_users)
            for row in rows
            for (label, metric), place in self.places.items()
            if label == row.label
        ]
        return pl.DataFrame(lines, schema=RESULTS, orient="row")

    def _mean(self, place: int) -> tuple[float, ...]:
        return self.means[place], *np.quantile(self.draws[:, place], TAILS)

    def _paired(self, row: ResultRow, metric: Metric) -> tuple[object, ...]:
        """Base row, difference, its interval, and the relative difference."""
        own = self.places[row.label, metric]
        base = self.places.get((row.base, metric)) if row.base else None
        if base is None:
            return (None,) * 5
        difference, of = self.means[own] - self.means[base], self.means[base]
        interval = np.quantile(self.draws[:, own] - self.draws[:, base], TAILS)
        return row.base, difference, *interval, difference / of if of else None


def resample(runs: Sequence[pl.DataFrame], n_resamples: int, seed: int) -> Resampled:
    """Means over runs of each run's mean over users; runs: ROWS_PER_USER, with users of their own.

    Every run resamples its own users (see `intervals.pooled_interval`). What a run does not have
    is left out; SHARES are ratios of means, whatever the tables hold of them. ValueError: a row
    lacks users that another has, or some users of a row lack a metric.
    """
    measured = [user_columns(run) for run in runs]
    columns = [
        column
        for column in measured[0]
        if column[1].measure not in SHARES and all(column in one for one in measured)
    ]
    values = [np.stack([one[column] for column in columns], axis=1) for one in measured]
    means = np.mean([one.mean(0) for one in values], axis=0)
    draws = pooled_means(values, n_resamples, seed)
    places = {column: place for place, column in enumerate(columns)}
    for label, metric in columns:
        for share, (part, whole) in SHARES.items():
            of = places.get((label, metric._replace(measure=whole)))
            if metric.measure == part and of is not None:
                pair = places[label, metric], of
                places[label, metric._replace(measure=share)] = len(means)
                means, draws = _with_share(means, *pair), _with_share(draws, *pair)
    return Resampled(places, means, draws, sum(map(len, values)))


def _with_share(values: np.ndarray, part: int, whole: int) -> np.ndarray:
    """`values` [..., C] with column part / whole appended; 0 where the whole is 0."""
    ratio = values[..., part] / np.where(values[..., whole] == 0, 1, values[..., whole])
    return np.concatenate([values, ratio[..., None]], axis=-1)
