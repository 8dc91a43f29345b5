"""Values per user and metric, as tables and as columns of numbers."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from recalign.metric_columns import Metric
from recalign.schemas import METRIC, PER_USER


def user_means(
    owners: np.ndarray, values: Mapping[Metric, np.ndarray]
) -> tuple[np.ndarray, dict[Metric, np.ndarray]]:
    """The users in order, int64 [U], and the mean of their own defined values, float64 [U].

    owners [N] and each metric's values [N], NaN where undefined; a user without any is NaN.
    """
    users, place = np.unique(owners, return_inverse=True)
    means = {}
    for metric, column in values.items():
        given = ~np.isnan(column)
        total = np.bincount(place, np.where(given, column, 0.0), minlength=len(users))
        n = np.bincount(place, given, minlength=len(users))
        means[metric] = total / np.where(n > 0, n, np.nan)
    return users, means


def per_user_table(users: np.ndarray, values: Mapping[Metric, np.ndarray]) -> pl.DataFrame:
    """PER_USER of `users` [U] and each metric's values [U], null where they are NaN.

    Users in their order, metrics in order of `values` for each.
    """
    owners = pl.DataFrame({"user_index": users}, {"user_index": PER_USER["user_index"]})
    metrics = pl.DataFrame(list(values), METRIC, orient="row")
    column = pl.Series("value", np.stack(list(values.values()), 1).ravel(), nan_to_null=True)
    return owners.join(metrics, how="cross").with_columns(column)


def rows_per_user(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """ROWS_PER_USER of the PER_USER table of each row, by label."""
    return pl.concat(
        table.select(pl.lit(label, pl.Categorical).alias("row"), pl.all())
        for label, table in tables.items()
    )


def means_over_users(per_user: pl.DataFrame) -> dict[Metric, float | None]:
    """Mean of each metric over the users it is defined for; None: for no user."""
    means = per_user.group_by(Metric._fields, maintain_order=True).agg(pl.col("value").mean())
    return {Metric(*metric): mean for *metric, mean in means.iter_rows()}


def user_columns(per_user: pl.DataFrame) -> dict[tuple[str, Metric], np.ndarray]:
    """The values of ROWS_PER_USER by row and metric, float64 [U], in order of user_index.

    Metrics that no user of a row has are left out. ValueError: a row has other users than the
    first one.
    """
    ordered = per_user.sort("user_index", maintain_order=True)
    parts = ordered.partition_by("row", *Metric._fields, as_dict=True, maintain_order=True)
    first, users = None, None
    columns = {}
    for (row, *metric), part in parts.items():
        if users is None:
            first, users = row, part["user_index"]
        if not part["user_index"].equals(users):
            raise ValueError(f"row {row!r} was measured on other users than {first!r}")
        if part["value"].null_count() < len(part):
            columns[str(row), Metric(*metric)] = part["value"].to_numpy()
    return columns
