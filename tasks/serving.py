"""Stage serving: the best items for every user asked for, exactly, from all they did up to now."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.shards import files_of_shards, write_joined
from recalign.config import ServingConfig
from recalign.parquet import scan_parquet
from recalign.report.stage_page import table_section
from recalign.schemas import REASONINGS, SERVING
from recalign.serving.rows import unlisted_rows
from tasks.encoding import open_fitted_encoder
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import read_asked_users

SHARD_USERS = 8192
N_SHOWN = 20  # rows on the run page
Lister = Callable[[pl.DataFrame, Callable[[int], None]], pl.DataFrame]
"""From users (user_id, user_index) with a history to their SERVING rows; may tell how many of them
are done."""


@stage(version=1)
def serving(
    job: Job,
    config: ServingConfig,
    histories: Artifact,
    oracle: Artifact,
    recommender: Artifact,
    reasonings: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Rank the whole catalogue for each user by the recommender that reads the user's text.

    `histories` are of that stage, or the run's own interactions where nothing newer is given.
    """
    artifacts = [histories, oracle, recommender, reasonings]
    serve_in_shards(
        job, histories, files or {}, lambda: _lister(job, config, artifacts), SHARD_USERS
    )


def serve_in_shards(
    job: Job,
    histories: Artifact,
    files: Mapping[str, list[Path]],
    opened: Callable[[], Lister],
    shard_users: int,
) -> None:
    """Fill the table, `shard_users` at a time; a killed run continues after the last shard.

    `opened` gives what ranks the users of a shard; it is called only where a shard is missing.
    """
    asked = read_asked_users(histories, files)
    listed = asked.filter(pl.col("user_index").is_not_null())
    parts = [listed, asked.filter(pl.col("user_index").is_null())]
    shards = [one for part in parts for one in part.iter_slices(shard_users) if one.height]

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        done = listed.height - sum(shards[n].height for n in missing)
        rank = opened()
        for number in missing:
            shard = shards[number]
            if shard["user_index"].null_count():
                yield number, unlisted_rows(shard["user_id"], shard["why_none"])
                continue

            def tell(n_done: int, before: int = done) -> None:
                job.progress(before + n_done, listed.height, "users")

            yield number, rank(shard, tell)
            tell(shard.height)
            done += shard.height

    # All that decides a shard but its size is in the fingerprint that the work folder belongs to.
    keys = [f"{number} of {shard_users}" for number in range(len(shards))]
    paths = files_of_shards(keys, compute, job.draft.work, SERVING)
    n_rows = write_joined(paths, job.draft.path(SERVING.file), SERVING)
    made = scan_parquet(job.draft.path(SERVING.file))
    none = made.group_by("why_none").len().drop_nulls().sort("why_none").collect()
    job.draft.count(n_rows, dict(none.iter_rows()))
    job.draft.tell({"users": asked.height, "users_listed": asked.height - int(none["len"].sum())})


def _lister(job: Job, config: ServingConfig, artifacts: list[Artifact]) -> Lister:
    """Everything that ranking needs but the users, opened once."""
    from recalign.recommending import open_ranker  # torch: seconds

    histories, oracle, recommender, reasonings = artifacts
    encoder = open_fitted_encoder(job, recommender)
    ranker = open_ranker(histories, oracle, recommender, encoder, job.device)
    usable = REASONINGS.read(reasonings).filter(pl.col("malformed").is_null())
    texts = usable.select("user_index", "reasoning")

    def rank(shard: pl.DataFrame, tell: Callable[[int], None]) -> pl.DataFrame:
        told = shard.join(texts, on="user_index", how="left", maintain_order="left")
        return ranker.rows(told, config)

    return rank


@serving.shows
def rows_shown(made: Artifact) -> list[str]:
    """The first rows."""
    rows = scan_parquet(made.path(SERVING.file)).head(N_SHOWN).collect()
    return [table_section("Some recommendations", rows)]
