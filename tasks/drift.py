"""Stage drift: how well the recommendations of the last refresh foresaw what was taken since."""

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import DriftConfig
from recalign.evaluation.intervals import mean_interval
from recalign.evaluation.taken_since import foreseen
from recalign.metric_columns import CATALOGUE, Metric
from recalign.schemas import INTERACTIONS, ITEMS, PER_USER, SERVING, USERS
from tasks.engine.job import Job
from tasks.engine.stage import stage


@stage(version=1)
def drift(
    job: Job, config: DriftConfig, served: Artifact, before: Artifact, histories: Artifact
) -> None:
    """NDCG@k and HR@k of the lists `served`, made from `before`, on what `histories` has beyond it.

    Users are told by their ids: the two may be numbered differently.
    """
    lists = SERVING.read(served)
    unseen = bool(served.manifest.config["exclude_seen"])
    table = foreseen(lists, _events(before), _events(histories), config.k, exclude_seen=unseen)
    PER_USER.write(table, job.draft)
    figures: dict[str, float | int] = {"users": table["user_index"].n_unique()}
    for measure in ("NDCG", "HR") if table.height else ():
        values = Metric(CATALOGUE, measure, config.k).lines(table)["value"].to_numpy()
        mean, low, high = mean_interval(values, config.n_resamples, config.seed)
        name = measure.lower()
        figures[name] = mean
        if low is not None and high is not None:
            figures |= {f"{name}_low": low, f"{name}_high": high}
    job.draft.count(table.height)
    job.draft.tell(figures)


def _events(histories: Artifact) -> pl.DataFrame:
    """user_id, item_id and timestamp of every interaction."""
    taken = INTERACTIONS.read(histories).select("user_index", "item_index", "timestamp")
    named = taken.join(USERS.read(histories), on="user_index").join(
        ITEMS.read(histories).select("item_index", "item_id"), on="item_index"
    )
    return named.select("user_id", "item_id", "timestamp")
