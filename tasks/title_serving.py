"""Stage title_serving: the best items for every user, by the LLM's own ranking of titles."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import read_object, write_atomically
from recalign.artifacts.kept_rows import KEY, KeptRows, folder_of
from recalign.config import TitleServingConfig
from recalign.schemas import ITEMS
from recalign.serving.rows import listed_rows
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.serving import Lister, rows_shown, serve_in_shards

if TYPE_CHECKING:
    from recalign.serving.top_lists import TopLists
    from recalign.title_recommending import TitleRanker

RANKED = {"items": pl.List(pl.Int64), "scores": pl.List(pl.Float32)}


@stage(version=1)
def title_serving(
    job: Job,
    config: TitleServingConfig,
    histories: Artifact,
    oracle: Artifact,
    policy: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Rank titles by their likelihood after each user's history; unchanged histories are kept.

    Lists are kept by the history that they come from: only users who were active since the last
    time cost anything.
    """
    made_by = {
        "policy": policy.manifest.digest, "oracle": oracle.reference.model_dump(),
        "settings": config.identity(), "items": histories.manifest.outputs[ITEMS.file].sha256,
    }  # fmt: skip
    kept = KeptRows(folder_of(job.cache, policy.reference.fingerprint, "lists", made_by), RANKED)
    counted = job.draft.work / "counts.json"  # those of a killed attempt's shards count, too
    counts = read_object(counted) or {"lists_made": 0, "lists_kept": 0}

    def opened() -> Lister:
        from recalign.title_recommending import open_title_ranker  # torch: seconds

        ranker = open_title_ranker(
            histories,
            oracle,
            policy,
            job.runtime.root,
            job.device,
            rows=job.runtime.generation_rows,
            mean=config.likelihood == "mean",
        )

        def rank(shard: pl.DataFrame) -> pl.DataFrame:
            users = shard["user_index"].to_numpy().astype(np.int64)
            lists, n_made = _remembered(kept, ranker, users, config)
            counts["lists_made"] += n_made
            counts["lists_kept"] += len(users) - n_made
            write_atomically(counted, json.dumps(counts))
            nothing = pl.Series([None] * len(users), dtype=pl.String)
            return listed_rows(shard["user_id"], lists, nothing, ranker.items)

        return rank

    serve_in_shards(job, histories, files or {}, opened, job.runtime.shard_users)
    job.draft.tell(counts)


def _remembered(
    kept: KeptRows, ranker: "TitleRanker", users: np.ndarray, config: TitleServingConfig
) -> "tuple[TopLists, int]":
    """The lists of `users` [U], kept or made now, and how many had to be made."""
    from recalign.serving.top_lists import TopLists

    histories = [ranker.sequences.slice(user, 0, 1 << 62) for user in users.tolist()]
    keys = pl.Series(KEY, [hashlib.sha256(one.tobytes()).hexdigest() for one in histories])
    distinct = pl.DataFrame({KEY: keys, "place": range(len(users))}).unique(
        KEY, keep="first", maintain_order=True
    )
    missing = distinct.join(kept.of(distinct[KEY]), on=KEY, how="anti", maintain_order="left")
    if missing.height:
        made = ranker.lists(users[missing["place"].to_numpy()], config)
        columns = {KEY: missing[KEY], "items": made.items.tolist(), "scores": made.scores.tolist()}
        kept.add(pl.DataFrame(columns, schema={KEY: pl.String, **RANKED}))
    rows = keys.to_frame().join(kept.of(distinct[KEY]), on=KEY, how="left", maintain_order="left")
    width = rows["items"].list.len()[0]
    items, scores = (rows[name].list.to_array(width).to_numpy() for name in RANKED)
    return TopLists(items, scores), missing.height


title_serving.shows(rows_shown)
