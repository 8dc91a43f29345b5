"""From raw tables to contiguous, chronological ones: filters, k-core, indices, item texts."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.kcore import k_core
from recalign.interactions.rawtables import RAW_INTERACTIONS, RAW_ITEMS, RawTables
from recalign.interactions.titles import item_text
from recalign.schemas import ATTRIBUTES, INTERACTIONS, ITEMS, USERS, check_table


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
    table = check_table(raw.interactions, RAW_INTERACTIONS, "raw interactions")
    raw_items = check_table(raw.items, RAW_ITEMS, "raw items")
    n_read = table.height
    dropped: dict[str, int] = {}
    for reason, keep in _row_filters(raw, config).items():
        kept = table.filter(keep.fill_null(False))
        dropped[reason] = table.height - kept.height
        table = kept
    user_ids, item_ids = _in_order(table["user_id"]), _in_order(table["item_id"])
    codes = _coded(table, user_ids, item_ids).sort("user", "timestamp", maintain_order=True)
    if config.duplicates != "keep":
        pair = codes["user"] * len(item_ids) + codes["item"]
        first = config.duplicates == "first"
        kept = codes.filter(pair.is_first_distinct() if first else pair.is_last_distinct())
        dropped["duplicate"] = codes.height - kept.height
        codes = kept
    rows = k_core(codes["user"].to_numpy(), codes["item"].to_numpy(), config.k_core)
    dropped["k_core"] = codes.height - len(rows)
    dropped = {reason: n for reason, n in dropped.items() if n}
    if len(rows) == 0:
        _refuse_nothing_left(n_read, dropped, config)
    interactions, users, items = _numbered(codes[rows], user_ids, item_ids)
    items, noted = _described(items, raw_items)
    noted = raw.noted | {what: n for what, n in noted.items() if n}
    return Ingested(interactions, items, users, dropped, noted)


def _row_filters(raw: RawTables, config: InteractionsConfig) -> dict[str, pl.Expr]:
    """What a row must fulfil on its own, by the reason it is dropped for otherwise."""
    filters: dict[str, pl.Expr] = {}
    if config.min_rating > 0:
        filters["no_rating"] = pl.col("rating").is_not_null()
        filters["low_rating"] = pl.col("rating") >= config.min_rating
    if raw.unknown_items == "drop":
        filters["unknown_item"] = pl.col("item_id").is_in(raw.items["item_id"].implode())
    return filters


def _in_order(ids: pl.Series) -> pl.Series:
    """Distinct ids, shorter first, then by code point."""
    distinct = ids.unique().rename("id").to_frame()
    return distinct.sort(pl.col("id").str.len_chars(), "id")["id"]


def _coded(table: pl.DataFrame, user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
    """Ids replaced by their place in `user_ids` and `item_ids`."""
    for name, ids in (("user", user_ids), ("item", item_ids)):
        places = ids.alias(f"{name}_id").to_frame().with_row_index(name)
        table = table.join(places, on=f"{name}_id", how="left", maintain_order="left")
    return table.select(pl.col("user", "item").cast(pl.Int64), "timestamp", "rating")


def _numbered(
    codes: pl.DataFrame, user_ids: pl.Series, item_ids: pl.Series
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """INTERACTIONS, USERS and items[item_index, item_id] with codes made contiguous."""
    users, user_index = _contiguous(codes["user"].to_numpy())
    items, item_index = _contiguous(codes["item"].to_numpy())
    lengths = np.bincount(user_index)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    interactions = pl.DataFrame(
        {
            "user_index": user_index,
            "item_index": item_index + 1,
            "position": np.arange(len(user_index)) - starts,
            "timestamp": codes["timestamp"],
            "rating": codes["rating"],
        },
        schema_overrides=INTERACTIONS,
    ).rechunk()
    user_table = pl.DataFrame(
        {"user_index": np.arange(len(users)), "user_id": user_ids[users]}, schema_overrides=USERS
    )
    item_table = pl.DataFrame(
        {"item_index": np.arange(1, len(items) + 1), "item_id": item_ids[items]},
        schema_overrides={"item_index": pl.Int32},
    )
    return interactions, user_table.rechunk(), item_table.rechunk()


def _contiguous(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes that occur, ascending, and each row's place among them (no sort needed)."""
    occurs = np.bincount(codes) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[codes]


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
