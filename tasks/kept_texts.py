"""Greedy texts that are kept by their prompt: a prompt that was answered before is not again."""

import hashlib
import json
import shutil
from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import read_object, write_atomically
from recalign.artifacts.kept_rows import KEY, KeptRows
from recalign.schemas import REASONINGS
from recalign.writer import Asked
from tasks.engine.job import Job
from tasks.reasonings import shards_by, users_per_shard

WRITTEN = {name: REASONINGS[name] for name in ("reasoning", "n_tokens", "malformed")}


def greedy_texts(
    job: Job, asked: Asked, prompts: pl.DataFrame, policy: Artifact, folder: Path
) -> tuple[pl.DataFrame, dict[str, int]]:
    """REASONINGS of all prompts (PROMPTS), sorted by user, and how many were written for them.

    `folder` keeps the texts of one LLM under these settings, shard by shard as they are written: a
    killed run continues after the last one. A forced stage writes all anew. In bfloat16 a text may
    differ by the batch it was written in: the one that is kept counts.
    """
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in prompts["prompt"]]
    prompts = prompts.with_columns(pl.Series(KEY, keys, dtype=pl.String))
    kept, n_written = _answered(job, asked, prompts, policy, folder)
    table = prompts.select("user_index", KEY).join(kept, on=KEY, how="left", maintain_order="left")
    table = table.with_columns(pl.lit(-1, pl.Int16).alias("sample")).sort("user_index")
    told = {"texts_written": n_written, "texts_kept": kept.height - n_written}
    return table.select(list(REASONINGS)), told


def _answered(
    job: Job, asked: Asked, prompts: pl.DataFrame, policy: Artifact, folder: Path
) -> tuple[pl.DataFrame, int]:
    """A row per distinct prompt with its text, and how many of them were written for this table."""
    counted = job.draft.work / "missing.json"  # by the first attempt: a killed one's texts are new
    if job.forced and not counted.exists():
        shutil.rmtree(folder, ignore_errors=True)
    kept = KeptRows(folder, WRITTEN)
    distinct = prompts.unique(KEY, maintain_order=True)
    missing = distinct.join(kept.of(distinct[KEY]), on=KEY, how="anti", maintain_order="left")
    n_missing = (read_object(counted) or {"n": missing.height})["n"]
    write_atomically(counted, json.dumps({"n": n_missing}))
    if missing.height:
        shards = list(missing.iter_slices(users_per_shard(job, policy, asked, missing)))
        write = shards_by(job, policy, asked, missing.height)
        for place, table in write(shards):
            keys = shards[place].select("user_index", KEY)
            kept.add(keys.join(table, on="user_index", validate="1:1"))
    return kept.of(distinct[KEY]), n_missing
