"""Newer interactions, laid over those of a finished run: new users, and items it does not know."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.cells import read_cells
from recalign.interactions.columns import WRITTEN_DATES, typed_interactions
from recalign.interactions.order import chronological
from recalign.progress import Progress, silent
from recalign.schemas import INTERACTIONS, ITEMLESS_USERS, UNKNOWN_ITEMS, USERS, check_table


@dataclass(frozen=True)
class RunTables:
    """The tables of a finished run: INTERACTIONS, ITEMS and USERS."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


@dataclass(frozen=True)
class Extended:
    """INTERACTIONS and USERS with the newer rows in them; old users keep their index.

    `dropped` counts the newer rows left out, by reason; unknown items are named (UNKNOWN_ITEMS),
    and so are users who took nothing else (ITEMLESS_USERS).
    """

    interactions: pl.DataFrame
    users: pl.DataFrame
    dropped: dict[str, int]
    unknown_items: pl.DataFrame
    itemless_users: pl.DataFrame


def read_newer(
    path: Path, config: InteractionsConfig, known: RunTables, progress: Progress = silent
) -> pl.DataFrame:
    """RAW_INTERACTIONS of a file with the columns of the run's own files, and times in its unit.

    The few numbers of a newer file may look like dates where the run's own file counts events, so
    the times of `known` decide what they are.
    A run on a publisher's data takes user_id, item_id, timestamp and, where ratings count, rating.
    A header alone is a day on which nobody took anything.
    Raises BadInputError as for a run's own files, and where all rows are before all known ones.
    """
    own = config.files
    rating = own.rating_column or ("rating" if config.min_rating else "")
    named = {
        "user_id": own.user_column,
        "item_id": own.item_column,
        "timestamp": own.timestamp_column,
        "rating": rating,
    }
    fields = {ours: theirs for ours, theirs in named.items() if theirs}
    where = "give it the columns that the run's own interactions have"
    cells = read_cells(path, fields, progress, advice=where, may_be_empty=True)
    ids = {"user_id": known.users["user_id"], "item_id": known.items["item_id"]}
    if not own.timestamp_column:
        return typed_interactions(*cells, known=ids)
    times = known.interactions["timestamp"]
    may_be_dates = not times.is_between(0, WRITTEN_DATES[1]).all()
    newer = typed_interactions(*cells, may_be_dates=may_be_dates, known=ids)
    _refuse_all_before(newer["timestamp"], times, f"{path}, field {own.timestamp_column}")
    return newer


def _refuse_all_before(newer: pl.Series, times: pl.Series, where: str) -> None:
    """BadInputError where no row is newer than the first known one: the units must differ."""
    if newer.is_empty() or times.is_empty():
        return
    latest, first = newer.to_numpy().max(), times.to_numpy().min()
    if latest < first:
        raise BadInputError(
            f"{where}: the latest time is read as {latest} seconds since 1970, before all that the "
            f"run knows (from {first} on); write times in the unit of the run's own file"
        )


def extend(known: RunTables, newer: pl.DataFrame, config: InteractionsConfig) -> Extended:
    """Lay newer rows (RAW_INTERACTIONS) over the run's, by its own rules for ratings and repeats.

    Rows without a time (the source has none) follow all that is known, in the order of the file.
    No k-core is asked of them: who comes once is recommended something, too. New users are
    numbered after the old ones, in the order of their first row.
    """
    rows, dropped = _passing(newer, config)
    rows = rows.join(known.items.select("item_id", "item_index"), on="item_id", how="left",
                     maintain_order="left")  # fmt: skip
    foreign = rows.filter(pl.col("item_index").is_null())
    rows = rows.filter(pl.col("item_index").is_not_null())
    dropped["unknown_item"] = foreign.height
    users = _with_new(known.users, rows["user_id"])
    rows = rows.join(users, on="user_id", how="left", maintain_order="left")
    if not config.files.timestamp_column:
        latest = known.interactions["timestamp"].max() or 0
        rows = rows.with_columns(pl.col("timestamp") + latest)
    merged = _merged(known.interactions, rows, config)
    dropped["duplicate"] = known.interactions.height + rows.height - merged.height
    itemless = foreign.join(users, on="user_id", how="anti").select("user_id").unique()
    counts = foreign.group_by("item_id").agg(pl.len().cast(pl.Int64).alias("n_interactions"))
    return Extended(
        merged,
        users,
        {reason: n for reason, n in dropped.items() if n},
        check_table(counts.sort("n_interactions", "item_id", descending=[True, False]),
                    UNKNOWN_ITEMS, "unknown items"),
        check_table(itemless.sort("user_id"), ITEMLESS_USERS, "users without known items"),
    )  # fmt: skip


def _passing(
    newer: pl.DataFrame, config: InteractionsConfig
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows whose rating counts, and how many are left out by reason."""
    if not config.min_rating:
        return newer, {}
    rated = newer.filter(pl.col("rating").is_not_null())
    kept = rated.filter(pl.col("rating") >= pl.lit(config.min_rating, pl.Float32))
    no_rating, low = newer.height - rated.height, rated.height - kept.height
    return kept, {"no_rating": no_rating, "low_rating": low}


def _with_new(users: pl.DataFrame, user_ids: pl.Series) -> pl.DataFrame:
    """USERS, those that are new behind the old ones."""
    seen = user_ids.unique(maintain_order=True).to_frame()
    new = seen.join(users, on="user_id", how="anti", maintain_order="left")
    index = pl.int_range(users.height, users.height + new.height, dtype=pl.Int32, eager=True)
    added = pl.DataFrame({"user_index": index, "user_id": new["user_id"]})
    return check_table(pl.concat([users, added]), USERS, "users")


def _merged(old: pl.DataFrame, new: pl.DataFrame, config: InteractionsConfig) -> pl.DataFrame:
    """INTERACTIONS of both, by user and time; at one time the old ones come first."""
    if config.duplicates == "keep":
        new = _beyond(old, new)
    names = {"user": "user_index", "item": "item_index", "time": "timestamp", "rating": "rating"}
    both = pl.concat([old.select(names.values()), new.select(names.values())])
    columns = {ours: both[name].to_numpy(writable=True) for ours, name in names.items()}
    kept = pl.DataFrame(chronological(columns, config.duplicates)).rename(names)
    place = pl.int_range(pl.len(), dtype=pl.Int32).over("user_index")
    kept = kept.with_columns(place.alias("position"), pl.col("rating").fill_nan(None))
    return check_table(kept, INTERACTIONS, "interactions")


def _beyond(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """The rows of `new` that `old` does not hold as often: a file may tell the whole history again.

    One row is another's repeat if user, item and time are the same.
    """
    same = ["user_index", "item_index", "timestamp"]
    nth = pl.int_range(pl.len()).over(same).alias("nth")
    known = old.select(*same, nth)
    return new.with_columns(nth).join(known, on=[*same, "nth"], how="anti", maintain_order="left")
