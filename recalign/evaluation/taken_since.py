"""What users took after they were recommended something: how well the lists foresaw it."""

import numpy as np
import polars as pl

from recalign.evaluation.per_user import per_user_table
from recalign.metric_columns import CATALOGUE, Metric
from recalign.metrics import hit_rate, ndcg

TAKEN = ["user_id", "item_id"]


def foreseen(
    served: pl.DataFrame,
    before: pl.DataFrame,
    now: pl.DataFrame,
    k: int,
    *,
    exclude_seen: bool = True,
) -> pl.DataFrame:
    """PER_USER: NDCG@k and HR@k of the lists of `served` (SERVING) on the items taken since.

    before, now: the columns TAKEN and timestamp of everything known when the lists were made, and
    today. An item counts once, and not if it is older than the newest that was known of the user:
    other filters let it through today. What the user had taken before counts only if lists hold
    what was seen, and only if it is newer. user_index counts the users who have a list and took
    something, in order of their id.
    """
    newest = before.group_by("user_id").agg(known=pl.col("timestamp").max())
    since = now.join(newest, on="user_id", how="left")
    since = since.filter((pl.col("timestamp") >= pl.col("known")).fill_null(True))
    new = since.join(before, on=TAKEN, how="anti")
    if not exclude_seen:
        again = since.filter(pl.col("timestamp") > pl.col("known"))
        new = pl.concat([new, again.join(before, on=TAKEN, how="semi")])
    new = new.select(TAKEN).unique()
    listed = served.filter(pl.col("rank").is_not_null())
    new = new.join(listed.select("user_id").unique(), on="user_id", how="semi")
    found = new.join(listed, on=TAKEN, how="left").with_columns(pl.col("rank").fill_null(0))
    by_user = found.sort("user_id", "rank", "item_id").group_by("user_id", maintain_order=True)
    ranks = by_user.agg("rank")["rank"].to_list()
    n_taken = np.array([len(own) for own in ranks], dtype=np.int64)
    padded = np.zeros((len(ranks), int(n_taken.max(initial=1))), dtype=np.int64)
    for row, own in enumerate(ranks):
        padded[row, : len(own)] = own
    values = {
        Metric(CATALOGUE, "NDCG", k): ndcg(padded, n_taken, k),
        Metric(CATALOGUE, "HR", k): hit_rate(padded, n_taken, k),
    }
    return per_user_table(np.arange(len(ranks)), values)
