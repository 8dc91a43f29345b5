"""The result table: every row and metric with its interval and its difference to a base row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from recalign.evaluation.intervals import TAILS, resampled_means
from recalign.evaluation.per_user import user_columns
from recalign.metric_columns import Metric
from recalign.schemas import RESULTS

SHARES = {
    "semantic hallucination": ("semantic error", "wrong"),
    "popular hallucination": ("popular error", "wrong"),
}
"""Measures that are the ratio of two others' means, as users differ in what the share is of."""


class ResultRow(NamedTuple):
    """Whose policy, how decoded, who recommends, and the row it is compared with.

    All but `base` are the first columns of `schemas.RESULTS`, where the values of each are listed.
    """

    label: str
    policy: str
    decoding: Literal["none", "greedy", "sampled"]
    recommender: str
    strategy: str | None = None
    estimator: str | None = None
    base: str | None = None  # label of the row it is compared with


def rows_of(results: pl.DataFrame) -> list[ResultRow]:
    """The rows that RESULTS holds, each with what it is compared with."""
    columns = {name: "row" if name == "label" else name for name in ResultRow._fields}
    kept = results.select(columns.values()).unique(maintain_order=True)
    return [ResultRow(*values) for values in kept.iter_rows()]


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
        lines = [  # a row without its last field, the base, is what the columns begin with
            (*row[:-1], *metric, *self._compared(place, row, metric), self.n_users)
            for row in rows
            for (label, metric), place in self.places.items()
            if label == row.label
        ]
        return pl.DataFrame(lines, schema=RESULTS, orient="row")

    def _compared(self, own: int, row: ResultRow, metric: Metric) -> tuple[object, ...]:
        """Mean and interval; base row, difference, its interval, and the relative difference."""
        mean, draws = self.means[own], self.draws[:, own]
        base = self.places.get((row.base, metric)) if row.base else None
        if base is None:
            return mean, *np.quantile(draws, TAILS), *(None,) * 5
        difference, of = mean - self.means[base], self.means[base]
        interval = np.quantile(draws - self.draws[:, base], TAILS)
        relative = difference / of if of else None
        return mean, *np.quantile(draws, TAILS), row.base, difference, *interval, relative


def resample(per_user: pl.DataFrame, n_resamples: int, seed: int) -> Resampled:
    """Means over users of every row and metric of ROWS_PER_USER, and resampled ones.

    SHARES are ratios of means, whatever the table holds of them. ValueError: a row lacks users that
    another has, or some users of a row lack a metric.
    """
    measured = user_columns(per_user)
    columns = [column for column in measured if column[1].measure not in SHARES]
    values = np.stack([measured[column] for column in columns], axis=1)
    means, draws = values.mean(0), resampled_means(values, n_resamples, seed)
    places = {column: place for place, column in enumerate(columns)}
    for label, metric in columns:
        for share, (part, whole) in SHARES.items():
            of = places.get((label, metric._replace(measure=whole)))
            if metric.measure == part and of is not None:
                pair = places[label, metric], of
                places[label, metric._replace(measure=share)] = len(means)
                means, draws = _with_share(means, *pair), _with_share(draws, *pair)
    return Resampled(places, means, draws, len(values))


def _with_share(values: np.ndarray, part: int, whole: int) -> np.ndarray:
    """`values` [..., C] with column part / whole appended; 0 where the whole is 0."""
    ratio = values[..., part] / np.where(values[..., whole] == 0, 1, values[..., whole])
    return np.concatenate([values, ratio[..., None]], axis=-1)
