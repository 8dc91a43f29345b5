"""Stage title_serving: the best items for every user, by the LLM's own ranking of titles."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import file_digest, read_object, write_atomically
from recalign.artifacts.kept_rows import KEY, KeptRows, folder_of
from recalign.config import TitleServingConfig
from recalign.schemas import ITEMS
from recalign.serving.rows import listed_rows
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.serving import Lister, rows_shown, serve_in_shards
from tasks.tables import read_asked_users

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
    time cost anything. `files` has a template where the questions are not a packaged one's.
    """
    files = files or {}
    templates = files.get("template", [])
    made_by = {
        "policy": policy.manifest.digest, "oracle": oracle.reference.model_dump(),
        "settings": config.identity(), "items": histories.manifest.outputs[ITEMS.file].sha256,
    }  # fmt: skip
    if templates:
        made_by["template"] = file_digest(templates[0])
    llm, version = policy.reference.fingerprint, job.draft.manifest.version
    kept = KeptRows(folder_of(job.cache, llm, "lists", made_by, version), RANKED)
    listed = read_asked_users(histories, files)["user_index"].drop_nulls().to_numpy()
    counted = job.draft.work / "counted.json"

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
            template=str(templates[0]) if templates else "",
        )
        if read_object(counted) is None:  # by the first attempt: a killed one's lists are new
            n_made = _missing(kept, _histories(ranker, listed)).height
            counts = {"lists_made": n_made, "lists_kept": len(listed) - n_made}
            write_atomically(counted, json.dumps(counts))

        def rank(shard: pl.DataFrame, tell: Callable[[int], None]) -> pl.DataFrame:
            users = shard["user_index"].to_numpy().astype(np.int64)
            lists = _remembered(kept, ranker, users, config, tell)
            nothing = pl.Series([None] * len(users), dtype=pl.String)
            return listed_rows(shard["user_id"], lists, nothing, ranker.items)

        return rank

    serve_in_shards(job, histories, files, opened, job.runtime.shard_users)
    job.draft.tell(read_object(counted) or {"lists_made": 0, "lists_kept": 0})


def _histories(ranker: "TitleRanker", users: np.ndarray) -> pl.Series:
    """The digest of the whole history of each of `users` [U]."""
    histories = (ranker.sequences.slice(user, 0, 1 << 62) for user in users.tolist())
    return pl.Series(KEY, [hashlib.sha256(one.tobytes()).hexdigest() for one in histories])


def _missing(kept: KeptRows, keys: pl.Series) -> pl.DataFrame:
    """The distinct ones of `keys` without a kept list, each with its first place among them."""
    places = keys.to_frame().with_row_index("place")
    distinct = places.unique(KEY, keep="first", maintain_order=True)
    return distinct.join(kept.of(distinct[KEY]), on=KEY, how="anti", maintain_order="left")


def _remembered(
    kept: KeptRows,
    ranker: "TitleRanker",
    users: np.ndarray,
    config: TitleServingConfig,
    tell: Callable[[int], None],
) -> "TopLists":
    """The lists of `users` [U], kept or made now; what the LLM has read is kept batch by batch."""
    from recalign.serving.top_lists import TopLists

    keys = _histories(ranker, users)
    left = _missing(kept, keys)
    for made in ranker.in_batches(users[left["place"].to_numpy()], config):
        own, left = left.head(len(made.items)), left.slice(len(made.items))
        columns = {KEY: own[KEY], "items": made.items.tolist(), "scores": made.scores.tolist()}
        kept.add(pl.DataFrame(columns, schema={KEY: pl.String, **RANKED}))
        tell(len(users) - left.height)
    rows = keys.to_frame().join(kept.of(keys.unique()), on=KEY, how="left", maintain_order="left")
    width = rows["items"].list.len()[0]
    items, scores = (rows[name].list.to_array(width).to_numpy() for name in RANKED)
    return TopLists(items, scores)


title_serving.shows(rows_shown)
