"""From raw tables to contiguous, chronological ones: filters, k-core, indices, item texts."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.kcore import k_core
from recalign.interactions.order import Ids, chronological, coded, counted, looked_up, parts
from recalign.interactions.rawtables import RAW_INTERACTIONS, RAW_ITEMS, RawTables
from recalign.interactions.remarks import (
    remarks_on_dropped,
    remarks_on_ids,
    remarks_on_users,
)
from recalign.interactions.titles import item_text
from recalign.schemas import ATTRIBUTES, INTERACTIONS, ITEMS, check_table


@dataclass(frozen=True)
class Ingested:
    """The tables of the stage, and what did not get into them.

    `dropped` counts interactions by reason: its sum plus the rows kept are the rows read.
    `noted` counts items that needed mending, and raw items that nobody took. `remarks` are
    sentences about what makes the data less than they seem.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    dropped: dict[str, int]
    noted: dict[str, int]
    remarks: list[str]


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
    unrated = columns["rating"].null_count() > 0
    table: dict[str, np.ndarray] = {}
    table["user"], user_ids = coded(columns.pop("user_id"))
    table["item"], item_ids = coded(columns.pop("item_id"))
    table["time"] = columns.pop("timestamp").to_numpy(writable=True)
    table["rating"] = columns.pop("rating").to_numpy(writable=True)  # NaN: none given
    known, strange = None, ""
    if unknown_items == "drop":
        known, strange = _known(table["item"], item_ids, raw_items)
    table, dropped = _kept(table, known, config)
    if len(table["user"]) == 0:
        _refuse_nothing_left(n_read, dropped, strange, config)
    users, user_index, positions = _numbered_users(table.pop("user"), user_ids)
    items, item_index = _numbered_items(table.pop("item"), item_ids)
    remarks = [
        *remarks_on_dropped(dropped, n_read, strange),
        *remarks_on_users(user_index, table["time"], users.height),
        *remarks_on_ids("user", users["user_id"]),
        *remarks_on_ids("item", items["item_id"]),
    ]
    interactions = pl.DataFrame(
        {
            "user_index": user_index,
            "item_index": item_index,
            "position": positions,
            "timestamp": pl.Series(table.pop("time")).cast(pl.Int64),
            "rating": table.pop("rating"),
        }
    )
    if unrated:
        interactions = interactions.with_columns(pl.col("rating").fill_nan(None))
    described, counts = _described(items, raw_items)
    noted = {what: n for what, n in (noted | counts).items() if n}
    interactions = check_table(interactions, INTERACTIONS, "interactions")
    return Ingested(interactions, described, users, dropped, noted, remarks)


def _columns(raw: RawTables) -> dict[str, pl.Series]:
    """The columns of RAW_INTERACTIONS; ids are text or UInt32, times Int64 or UInt32."""
    schema = dict(RAW_INTERACTIONS)
    for name in ("user_id", "item_id", "timestamp"):
        if raw.interactions.schema.get(name) == pl.UInt32:
            schema[name] = pl.UInt32
    table = check_table(raw.interactions, schema, "raw interactions")
    return {column.name: column for column in table.get_columns()}


def _known(codes: np.ndarray, ids: Ids, raw_items: pl.DataFrame) -> tuple[np.ndarray | None, str]:
    """Whether each row's item is among `raw_items`: bool [n], None where all are.

    And two ids of each side in words, where not all are.
    """
    occurring = np.flatnonzero(counted(codes, ids.n))
    found = ids.of(occurring).is_in(raw_items["item_id"].implode()).to_numpy()
    if found.all():
        return None, ""
    known = np.zeros(ids.n, dtype=bool)
    known[occurring] = found
    examples = [ids.of(occurring[~found][:2]), raw_items["item_id"].head(2)]
    unknown, there = (" and ".join(f"'{one[:40]}'" for one in side) for side in examples)
    strange = f"the interactions have {unknown}, the items {there or 'no id'}"
    return looked_up(known, codes), strange


def _kept(
    table: dict[str, np.ndarray], known: np.ndarray | None, config: InteractionsConfig
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The rows that stay, by user and time, and how many were dropped for each reason."""
    passed, dropped = _filtered(table["rating"], known, config)
    table = _only(passed, table)
    dropped["duplicate"] = len(table["user"])
    table = chronological(table, config.duplicates)
    dropped["duplicate"] -= len(table["user"])
    core = k_core(table["user"], table["item"], config.k_core)
    dropped["k_core"] = len(core) - int(core.sum())
    table = _only(core if dropped["k_core"] else None, table)
    return table, {reason: n for reason, n in dropped.items() if n}


def _filtered(
    ratings: np.ndarray, known: np.ndarray | None, config: InteractionsConfig
) -> tuple[np.ndarray | None, dict[str, int]]:
    """Rows that pass on their own (None: all), and how many fail by the first reason met."""
    passes: dict[str, np.ndarray] = {}
    if config.min_rating > 0:
        passes["no_rating"] = ~np.isnan(ratings)
        passes["low_rating"] = ratings >= np.float32(config.min_rating)
    if known is not None:
        passes["unknown_item"] = known
    kept: np.ndarray | None = None
    dropped: dict[str, int] = {}
    for reason, passed in passes.items():
        before = len(passed) if kept is None else int(kept.sum())
        kept = passed if kept is None else kept & passed
        dropped[reason] = before - int(kept.sum())
    return (kept if any(dropped.values()) else None), dropped


def _only(kept: np.ndarray | None, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The kept rows (None: all); each column of `table` goes as its shorter form is made."""
    if kept is None:
        return table
    return {name: table.pop(name)[kept] for name in list(table)}


def _numbered_users(codes: np.ndarray, ids: Ids) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """USERS, and of every row the user's index (over `codes`, which ascend) and the position."""
    changes = codes[1:] != codes[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int32)
    index = np.arange(len(starts), dtype=np.int32)
    table = pl.DataFrame({"user_index": index, "user_id": ids.of(codes[starts])})
    codes[0] = 0
    np.cumsum(changes, dtype=np.int32, out=codes[1:])
    # made by polars, as the cast of times is: numpy asks for huge pages, which are slow to get
    positions = pl.int_range(len(codes), dtype=pl.Int32, eager=True).to_numpy(writable=True)
    for part in parts(len(codes)):
        positions[part] -= starts[codes[part]]
    return table, codes, positions


def _numbered_items(codes: np.ndarray, ids: Ids) -> tuple[pl.DataFrame, np.ndarray]:
    """item_index (from 1) and item_id of the items left; every row's index, over `codes`."""
    occurs = counted(codes, ids.n) > 0
    left = np.flatnonzero(occurs)
    index = np.arange(1, len(left) + 1, dtype=np.int32)
    places = np.cumsum(occurs, dtype=np.int32)
    for part in parts(len(codes)):
        codes[part] = places[codes[part]]
    return pl.DataFrame({"item_index": index, "item_id": ids.of(left)}), codes


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
    facets = joined["attributes"]
    names, values = (
        facets.list.eval(pl.element().struct.field(field)).to_list() for field in ("name", "value")
    )
    texts = list(map(item_text, joined["title"], names, values))
    described = joined.with_columns(pl.Series("text", texts, dtype=pl.String))
    return check_table(described, ITEMS, "items").rechunk(), noted


def _refuse_nothing_left(
    n_read: int, dropped: dict[str, int], strange: str, config: InteractionsConfig
) -> None:
    reasons = ", ".join(f"{n} by {reason}" for reason, n in dropped.items()) or "there were none"
    rated = "leave min_rating out"
    if config.source == "files":
        rated = f"name their column in interactions.files.rating_column, or {rated}"
    mends = [
        f"write the item ids of both files alike: {strange}" if "unknown_item" in dropped else "",
        f"lower interactions.k_core (now {config.k_core})" if "k_core" in dropped else "",
        f"lower interactions.min_rating (now {config.min_rating:g})"
        if "low_rating" in dropped
        else "",
        f"there are no ratings to compare interactions.min_rating with: {rated}"
        if "no_rating" in dropped
        else "",
    ]
    told = "; ".join([f"dropped {reasons}", *filter(None, mends)])
    raise BadInputError(f"no interaction is left of {n_read} read: {told}")
