"""The synthetic world's arrays as raw tables, as a source of real data would give them."""

import numpy as np
import polars as pl

from recalign.schemas import ATTRIBUTES

FIRST_TIME = 1_577_836_800  # 2020-01-01T00:00:00Z
STARTS_WITHIN = 2 * 365 * 86_400  # seconds during which users arrive
MEAN_GAP = 5 * 86_400.0  # seconds between a user's interactions, exponentially distributed


def interaction_table(
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    chosen: np.ndarray,
    lengths: np.ndarray,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Raw interactions, user by user in order of time.

    chosen: item rows [n_users, L], of which the first `lengths[u]` count.
    """
    gaps = 60 + rng.exponential(MEAN_GAP, size=chosen.shape).astype(np.int64)
    arrivals = rng.integers(STARTS_WITHIN, size=len(chosen))
    times = FIRST_TIME + arrivals[:, None] + np.cumsum(gaps, axis=1)
    users, columns = np.nonzero(np.arange(chosen.shape[1]) < lengths[:, None])
    return pl.DataFrame(
        {
            "user_id": pl.Series(user_ids, dtype=pl.String).gather(users),
            "item_id": pl.Series(item_ids, dtype=pl.String).gather(chosen[users, columns]),
            "timestamp": times[users, columns],
            "rating": pl.repeat(None, len(users), dtype=pl.Float32, eager=True),
            "row": np.arange(len(users), dtype=np.int64),
        }
    )


def item_table(
    item_ids: np.ndarray, titles: list[str], values: np.ndarray, names: list[tuple[str, str]]
) -> pl.DataFrame:
    """Raw items; `values` [n_items, A] are codes into `names`, len(names) where there is none."""
    rows, columns = np.nonzero(values < len(names))
    attributes = _named(names, values[rows, columns]).with_columns(item=pl.Series(rows))
    lists = attributes.group_by("item", maintain_order=True).agg(
        attributes=pl.struct("name", "value")
    )
    return pl.DataFrame(
        {
            "item_id": pl.Series(item_ids, dtype=pl.String),
            "title": titles,
            "attributes": lists["attributes"].cast(ATTRIBUTES),
        }
    )


def truth_table(
    user_ids: np.ndarray,
    liked: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    names: list[tuple[str, str]],
) -> pl.DataFrame:
    """TRUTH by user_id: every liked value with the position from which it holds.

    liked: codes into `names` [R, n_users, T]; weights [n_users, T]; starts [R, n_users], -1
    where taste r never holds.
    """
    users, regimes = np.nonzero(starts.T >= 0)
    n_liked = liked.shape[2]
    positions = np.repeat(starts[regimes, users], n_liked).astype(np.int32)
    return _named(names, liked[regimes, users].ravel()).select(
        pl.Series(user_ids, dtype=pl.String).gather(np.repeat(users, n_liked)).alias("user_id"),
        pl.Series("from_position", positions),
        "name",
        "value",
        weight=pl.Series(weights[users].ravel().astype(np.float32)),
    )


def _named(names: list[tuple[str, str]], codes: np.ndarray) -> pl.DataFrame:
    """The name and value of each code."""
    return pl.DataFrame(names, schema=["name", "value"], orient="row")[codes]


def with_indices(
    truth: pl.DataFrame,
    appeal: pl.DataFrame,
    users: pl.DataFrame,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """TRUTH and APPEAL by index, of the users and items that ingest kept.

    interactions: the world's raw ones; where ingest dropped some (rare items), the positions at
    which tastes change move with those that are left.
    """
    items = items.select("item_index", "item_id")
    truth = _moved(truth, interactions.join(items, on="item_id", how="left"))
    truth = users.join(truth, on="user_id").drop("user_id").sort("user_index", "from_position")
    return truth, items.join(appeal, on="item_id").drop("item_id").sort("item_index")


def _moved(truth: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """Truth with from_position counted in interactions that have an item_index alone."""
    left = interactions.sort("row").select(
        "user_id",
        from_position=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id"),
        left=pl.col("item_index").is_not_null().cast(pl.Int32).cum_sum().over("user_id"),
    )
    moved = truth.join(left, on=["user_id", "from_position"], how="left").with_columns(
        pl.col("left").fill_null(0)  # position 0 stays
    )
    holds = pl.col("from_position") == pl.col("from_position").max().over("user_id", "left")
    return moved.filter(holds).with_columns(from_position=pl.col("left")).drop("left")
