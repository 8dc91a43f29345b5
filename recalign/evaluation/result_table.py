"""The result table: every row and metric with its interval and its difference to a base row."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recalign.evaluation.intervals import TAILS, pooled_means
from recalign.evaluation.rows import Evaluated, Row
from recalign.metrics import average_popularity, coverage, gini, long_tail_share
from recalign.schemas import RECOMMENDED, RESULTS


def summary_table(
    rows: list[Row], per_user: pl.DataFrame, n_resamples: int, seed: int
) -> pl.DataFrame:
    """RESULTS of one evaluation; per_user holds row, user_index and one column per metric."""
    return pooled_table(rows, [per_user], n_resamples, seed)


def pooled_table(
    rows: list[Row],
    runs: Sequence[pl.DataFrame],
    n_resamples: int,
    seed: int,
    shares: Mapping[str, tuple[str, str]] | None = None,
) -> pl.DataFrame:
    """RESULTS over several runs with users of their own: means of the runs' means.

    Every run resamples its own users (see `intervals.pooled_interval`), and all rows and metrics
    see the same drawn users, so that each difference is paired. `shares` names further metrics
    that are the ratio of two metrics' means, as users differ in what the share is taken of.
    ValueError: a row lacks users that another has, or a metric is missing.
    """
    metrics = [name for name in runs[0].columns if name not in ("row", "user_index")]
    blocks = [_block(rows, per_user, metrics) for per_user in runs]
    shape = (len(rows), len(metrics))
    flat = [block.reshape(len(block), -1) for block in blocks]
    means = np.mean([block.mean(0) for block in flat], 0).reshape(shape)
    resampled = pooled_means(flat, n_resamples, seed).reshape(-1, *shape)
    for name, (part, whole) in (shares or {}).items():
        places = metrics.index(part), metrics.index(whole)
        metrics = [*metrics, name]
        means, resampled = _with_share(means, *places), _with_share(resampled, *places)
    n_users = sum(len(block) for block in blocks)
    place = {row.label: number for number, row in enumerate(rows)}
    records: list[tuple[object, ...]] = []
    for number, row in enumerate(rows):
        base = place[row.base] if row.base is not None else None
        for column, metric in enumerate(metrics):
            record = (row.label, row.policy, row.decoding, row.recommender, metric)
            mean = means[number, column]
            interval = np.quantile(resampled[:, number, column], TAILS)
            paired: tuple[object, ...] = (None,) * 5
            if base is not None:
                shift = resampled[:, number, column] - resampled[:, base, column]
                difference, of = mean - means[base, column], means[base, column]
                relative = difference / of if of else None
                paired = (row.base, difference, *np.quantile(shift, TAILS), relative)
            records.append((*record, mean, *interval, *paired, n_users))
    return pl.DataFrame(records, schema=RESULTS, orient="row")


def _with_share(values: np.ndarray, part: int, whole: int) -> np.ndarray:
    """`values` [..., M] with column part / whole appended; 0 where the whole is 0."""
    ratio = values[..., part] / np.where(values[..., whole] == 0, 1, values[..., whole])
    return np.concatenate([values, ratio[..., None]], axis=-1)


def recommended_table(evaluated: dict[str, Evaluated], popularity: np.ndarray) -> pl.DataFrame:
    """What the heads of the lists hold: RECOMMENDED, one line per row.

    popularity [I+1]: interactions with each item in the history windows, column 0 aside.
    """
    lines = [
        (
            label,
            coverage(one.recommended, len(popularity) - 1),
            gini(one.recommended, len(popularity) - 1),
            np.nanmean(average_popularity(one.recommended, popularity)),
            np.nanmean(long_tail_share(one.recommended, popularity)),
        )
        for label, one in evaluated.items()
    ]
    return pl.DataFrame(lines, schema=RECOMMENDED, orient="row")


def _block(rows: list[Row], per_user: pl.DataFrame, metrics: list[str]) -> np.ndarray:
    """Metrics of one run as float64 [U, rows, metrics], every row with the same users."""
    block: list[np.ndarray] = []
    users: pl.Series | None = None
    for row in rows:
        own = per_user.filter(pl.col("row") == row.label).sort("user_index")
        if users is None:
            users = own["user_index"]
        if not own["user_index"].equals(users):
            raise ValueError(
                f"row {row.label!r} was measured on other users than {rows[0].label!r}"
            )
        block.append(own.select(metrics).to_numpy().astype(float))
    return np.stack(block, axis=1)
