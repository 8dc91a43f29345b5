"""From raw tables to contiguous, chronological ones: filters, k-core, indices, item texts."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.kcore import k_core
from recalign.interactions.order import chronological, coded, contiguous, gathered, occurring
from recalign.interactions.rawtables import RAW_INTERACTIONS, RAW_ITEMS, RawTables
from recalign.interactions.titles import item_text
from recalign.schemas import ATTRIBUTES, INTERACTIONS, ITEMS, check_table


@dataclass(frozen=True)
class Ingested:
    """The tables of the stage, and what did not get into them.

    `dropped` counts interactions by reason: its sum plus the rows kept are the rows read.
    `noted` counts items that needed mending, and raw items that nobody took.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    dropped: dict[str, int]
    noted: dict[str, int]


def ingest(raw: RawTables, config: InteractionsConfig) -> Ingested:
    """Filter by rating, unknown items, duplicates and k-core, in this order; number what is left.

    Users are numbered from 0 and items from 1 in the order of their ids, shorter ids first, then
    by code point ('2' before '10'): the same in every process and on every machine. Interactions
    are sorted by user and time; rows of equal time keep the source's order.
    Raises BadInputError when nothing is left.
    """
    raw_items = check_table(raw.items, RAW_ITEMS, "raw items")
    unknown_items, noted = raw.unknown_items, raw.noted
    columns = _columns(raw)
    del raw  # the caller holds no copy either: each column goes as soon as the next form is made
    n_read = len(columns["user_id"])
    users, user_ids = coded(columns.pop("user_id"))
    items, item_ids = coded(columns.pop("item_id"))
    times, ratings = columns.pop("timestamp").to_numpy(), columns.pop("rating")
    known = item_ids.is_in(raw_items["item_id"].implode()) if unknown_items == "drop" else None
    if known is not None and known.all():
        known = None
    passing = None if known is None else gathered(known.to_numpy(), items)
    kept, dropped = _filtered(ratings, passing, config)
    if kept is not None:
        users, items, times, ratings = users[kept], items[kept], times[kept], ratings.filter(kept)
    rows = chronological(users, items, times, config.duplicates)
    dropped["duplicate"] = len(users) - len(rows)
    users = gathered(users, rows)
    items = gathered(items, rows)
    core = k_core(users, items, config.k_core)
    dropped["k_core"] = len(rows) - int(core.sum())
    if dropped["k_core"]:
        rows, users, items = rows[core], users[core], items[core]
    dropped = {reason: n for reason, n in dropped.items() if n}
    if len(rows) == 0:
        _refuse_nothing_left(n_read, dropped, config)
    interactions = pl.DataFrame(
        {"timestamp": gathered(times, rows)}
    )  # a copy: its array can go at once
    del times
    interactions = interactions.with_columns(_gathered(ratings, rows).alias("rating"))
    del ratings, rows, core
    user_table, users = _numbered(users, user_ids, "user", first=0)
    interactions = interactions.with_columns(pl.Series("user_index", users), _positions(users))
    del users
    item_table, items = _numbered(items, item_ids, "item", first=1)
    interactions = interactions.with_columns(pl.Series("item_index", items))
    del items
    described, counted = _described(item_table, raw_items)
    noted = noted | {what: n for what, n in counted.items() if n}
    interactions = check_table(interactions, INTERACTIONS, "interactions").rechunk()
    return Ingested(interactions, described, user_table, dropped, noted)


def _gathered(ratings: pl.Series, rows: np.ndarray) -> pl.Series:
    if ratings.null_count():
        return ratings.gather(rows)
    return pl.Series(gathered(ratings.to_numpy(), rows))


def _positions(users: np.ndarray) -> pl.Series:
    """Place of every row among its user's, from 0; `users` ascend from 0 without a gap."""
    starts = np.searchsorted(users, np.arange(users[-1] + 1, dtype=np.int32)).astype(np.int32)
    places = np.arange(len(users), dtype=np.int32)
    places -= gathered(starts, users)
    return pl.Series("position", places)


def _columns(raw: RawTables) -> dict[str, pl.Series]:
    """The columns of RAW_INTERACTIONS, in one piece each; ids are text or UInt32."""
    schema = dict(RAW_INTERACTIONS)
    for name in ("user_id", "item_id"):
        if raw.interactions.schema.get(name) == pl.UInt32:
            schema[name] = pl.UInt32
    table = check_table(raw.interactions, schema, "raw interactions")
    return {column.name: column for column in table.get_columns()}


def _filtered(
    ratings: pl.Series, known: np.ndarray | None, config: InteractionsConfig
) -> tuple[np.ndarray | None, dict[str, int]]:
    """Rows that pass on their own (None: all), and how many fail by the first reason met."""
    passes: dict[str, np.ndarray] = {}
    if config.min_rating > 0:
        passes["no_rating"] = ratings.is_not_null().to_numpy()
        passes["low_rating"] = (ratings >= config.min_rating).fill_null(False).to_numpy()
    if known is not None:
        passes["unknown_item"] = known
    kept: np.ndarray | None = None
    dropped: dict[str, int] = {}
    for reason, passed in passes.items():
        before = len(passed) if kept is None else int(kept.sum())
        kept = passed if kept is None else kept & passed
        dropped[reason] = before - int(kept.sum())
    return (kept if any(dropped.values()) else None), dropped


def _numbered(
    codes: np.ndarray, ids: pl.Series, kind: str, first: int
) -> tuple[pl.DataFrame, np.ndarray]:
    """<kind>_index and <kind>_id left, renumbered from `first`, and the rows' codes."""
    left, places = contiguous(occurring(codes, len(ids)))
    index = np.arange(first, first + len(left), dtype=np.int32)
    table = pl.DataFrame({f"{kind}_index": index, f"{kind}_id": ids.gather(left)})
    return table.rechunk(), gathered(places + np.int32(first), codes)


def _described(items: pl.DataFrame, raw: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """ITEMS: titles, attributes and texts joined on; an item without a title is called its id."""
    known = raw.with_columns(pl.lit(True).alias("known"))
    joined = items.join(known, on="item_id", how="left", maintain_order="left", validate="m:1")
    noted = {
        "items_without_metadata": joined["known"].null_count(),
        "items_without_title": joined["title"].null_count() - joined["known"].null_count(),
        "items_without_interactions": raw.height - (joined.height - joined["known"].null_count()),
    }
    joined = joined.with_columns(
        pl.col("title").fill_null(pl.col("item_id")),
        pl.col("attributes").fill_null(pl.lit([], dtype=ATTRIBUTES)),
    )
    pairs = joined.select("title", "attributes").iter_rows()
    texts = [item_text(title, attributes) for title, attributes in pairs]
    described = joined.with_columns(pl.Series("text", texts, dtype=pl.String))
    return check_table(described, ITEMS, "items").rechunk(), noted


def _refuse_nothing_left(n_read: int, dropped: dict[str, int], config: InteractionsConfig) -> None:
    reasons = ", ".join(f"{n} by {reason}" for reason, n in dropped.items()) or "there were none"
    raise BadInputError(
        f"no interaction is left of {n_read} read: dropped {reasons}; lower interactions.k_core "
        f"(now {config.k_core}) or interactions.min_rating (now {config.min_rating:g}), or check "
        "that both files use the same item ids"
    )
