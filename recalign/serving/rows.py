"""What is handed out: rows of recommendations, and of users who get none, with the reason."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from recalign.schemas import SERVING, check_table

if TYPE_CHECKING:
    from recalign.serving.top_lists import TopLists

WhyNone = Literal["no history", "only unknown items", "every item is seen"]


def asked_users(
    user_ids: pl.Series | None, users: pl.DataFrame, itemless: pl.Series
) -> pl.DataFrame:
    """Whom to recommend something: user_id, user_index (null: unknown) and why_none, a row each.

    user_ids: those asked for, in that order; None: all of USERS, then the itemless (see
    ITEMLESS_USERS).
    """
    if user_ids is None:
        user_ids = pl.concat([users["user_id"], itemless.rename("user_id")])
    asked = user_ids.rename("user_id").to_frame()
    asked = asked.join(users, on="user_id", how="left", maintain_order="left")
    unknown: WhyNone = "no history"
    foreign: WhyNone = "only unknown items"
    why = pl.when(pl.col("user_id").is_in(itemless.implode())).then(pl.lit(foreign))
    why = pl.when(pl.col("user_index").is_null()).then(why.otherwise(pl.lit(unknown)))
    return asked.select("user_id", "user_index", why.alias("why_none"))


def listed_rows(
    user_ids: pl.Series, lists: "TopLists", reasonings: pl.Series, items: pl.DataFrame
) -> pl.DataFrame:
    """SERVING rows of users with a history; `items` are ITEMS, `reasonings` one each or null."""
    owners, places = np.nonzero(lists.items)
    chosen = items.sort("item_index")[["item_id", "title"]][lists.items[owners, places] - 1]
    first = pl.Series(places == 0)
    rows = pl.DataFrame(
        {
            "user_id": user_ids.gather(owners),
            "rank": places + 1,
            "item_id": chosen["item_id"],
            "title": chosen["title"],
            "score": lists.scores[owners, places],
            "reasoning": reasonings.gather(owners).set(~first, None),
        }
    ).with_columns(why_none=pl.lit(None, pl.String), rank=pl.col("rank").cast(pl.Int32))
    done: WhyNone = "every item is seen"
    empty = user_ids.filter(pl.Series((lists.items == 0).all(1)))
    return pl.concat([rows.select(list(SERVING)), unlisted_rows(empty, pl.lit(done))])


def unlisted_rows(user_ids: pl.Series, why: pl.Expr | pl.Series) -> pl.DataFrame:
    """SERVING rows of users without recommendations."""
    table = user_ids.rename("user_id").to_frame().with_columns(why.alias("why_none"))
    absent = [pl.lit(None, kind).alias(name) for name, kind in SERVING.items()]
    rest = [one for one in absent if one.meta.output_name() not in table.columns]
    return check_table(table.with_columns(rest), SERVING, "users without recommendations")
