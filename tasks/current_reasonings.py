"""Stage current_reasonings: what the policy writes about every user now, from whole histories."""

import hashlib
import json
from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import read_object, write_atomically
from recalign.artifacts.kept_rows import KEY, KeptRows, folder_of
from recalign.chat_server.usage import server_used
from recalign.config import SamplingConfig
from recalign.reasonings.prompts import Renderer, render_prompts
from recalign.report.stage_page import table_section
from recalign.schemas import INTERACTIONS, ITEMS, REASONINGS
from recalign.sequences import Sequences
from recalign.writer import Asked
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.reasonings import N_SHOWN, shards_by, users_per_shard
from tasks.tables import read_asked_users

WRITTEN = {name: REASONINGS[name] for name in ("reasoning", "n_tokens", "malformed")}


@stage(version=1)
def current_reasonings(
    job: Job,
    config: SamplingConfig,
    histories: Artifact,
    policy: Artifact,
    files: dict[str, list[Path]],
) -> None:
    """The greedy text about each user asked for; prompts that were answered before are not again.

    Prompts end at the newest interaction: there is no target behind them, hence no guard. In
    bfloat16 a text may differ by the batch it was written in: the one that is kept counts.
    """
    users = read_asked_users(histories, files)["user_index"].drop_nulls().to_numpy()
    items = ITEMS.read(histories)
    sequences = Sequences.of(INTERACTIONS.read(histories), items.height)
    render = Renderer(str(files["template"][0]), items)
    stops = sequences.lengths[users]
    prompts = render_prompts(render, sequences, users, stops, config.history_items)
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in prompts["prompt"]]
    prompts = prompts.with_columns(pl.Series(KEY, keys, dtype=pl.String))
    kept, n_written = _answered(job, config, prompts, policy)
    table = prompts.select("user_index", KEY).join(kept, on=KEY, how="left", maintain_order="left")
    table = table.with_columns(pl.lit(-1, pl.Int16).alias("sample")).sort("user_index")
    REASONINGS.write(table.select(list(REASONINGS)), job.draft)
    reasons = table["malformed"].drop_nulls().value_counts().sort("malformed").rows()
    job.draft.count(table.height, {f"malformed: {reason}": n for reason, n in reasons})
    told = {"texts_written": n_written, "texts_kept": kept.height - n_written}
    job.draft.tell(told | server_used(job.draft.work))


def _answered(
    job: Job, config: SamplingConfig, prompts: pl.DataFrame, policy: Artifact
) -> tuple[pl.DataFrame, int]:
    """A row per distinct prompt with its text, and how many of them were written for this table.

    Each shard is kept as soon as it is written: a killed run continues after it.
    """
    made_by = {"policy": policy.manifest.digest, "settings": config.identity()}
    folder = folder_of(job.cache, policy.reference.fingerprint, "texts", made_by)
    kept = KeptRows(folder, WRITTEN)
    distinct = prompts.unique(KEY, maintain_order=True)
    missing = distinct.join(kept.of(distinct[KEY]), on=KEY, how="anti", maintain_order="left")
    counted = job.draft.work / "missing.json"  # by the first attempt: a killed one's texts are new
    n_missing = (read_object(counted) or {"n": missing.height})["n"]
    write_atomically(counted, json.dumps({"n": n_missing}))
    if missing.height:
        asked = Asked(config, n_samples=0, greedy=True)
        shards = list(missing.iter_slices(users_per_shard(job, policy, asked, missing)))
        write = shards_by(job, policy, asked, missing.height)
        for place, table in write(shards):
            keys = shards[place].select("user_index", KEY)
            kept.add(keys.join(table, on="user_index", validate="1:1"))
    return kept.of(distinct[KEY]), n_missing


@current_reasonings.shows
def texts_shown(made: Artifact) -> list[str]:
    """The first users' texts."""
    return [table_section("Some texts", REASONINGS.read(made).head(N_SHOWN))]
