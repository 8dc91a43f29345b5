"""Generation in shards of users: what a killed run has finished is not generated again."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.config import SamplingConfig
from recalign.errors import BadInputError
from recalign.progress import Progress, silent
from recalign.reasonings.generate import generate
from recalign.reasonings.texts import check_text
from recalign.schemas import REASONINGS, check_table

_DIGEST = "recalign.shard"
"""Key of the Parquet file's metadata that says what the shard was generated from."""


def generate_in_shards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encode_prompt: Callable[[str], list[int]],
    prompts: pl.DataFrame,
    config: SamplingConfig,
    n_samples: int,
    greedy: bool,
    work: Path,
    shard_users: int = 256,
    rows: int = 2048,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
    *,
    parse: Callable[[str], bool] | None = None,
    stream: str = "reasonings",
) -> pl.DataFrame:
    """The `reasonings` of every prompt (`PROMPTS`), sorted by user and sample.

    `work` belongs to one policy. Each `shard_users` prompts become work/shard-NNNNN.parquet; a
    shard that is there, whole, and of the same prompts and settings is read instead. The result
    does not depend on `shard_users` or `rows` (see generate). Progress counts users.
    """
    work.mkdir(parents=True, exist_ok=True)
    prompts = prompts.sort("user_index")
    settings = json.dumps([config.identity(), n_samples, greedy, stream], sort_keys=True)
    tables = []
    for number, first in enumerate(range(0, prompts.height, shard_users)):
        shard = prompts.slice(first, shard_users)
        path = work / f"shard-{number:05d}.parquet"
        digest = _digest(shard, settings)
        table = _read_shard(path, digest)
        if table is None:
            table = _generate_shard(
                model, tokenizer, encode_prompt, shard, config, n_samples, greedy, rows, device,
                _from(progress, first, prompts.height), parse, stream,
            )  # fmt: skip
            _write_shard(table, path, digest)
        tables.append(table)
        progress(first + shard.height, prompts.height)
    empty = pl.DataFrame(schema=REASONINGS)
    return pl.concat([empty, *tables]).sort("user_index", "sample")


def _from(progress: Progress, first: int, n_users: int) -> Progress:
    """The progress of one shard, told as progress of the whole."""

    def shifted(done: int, total: int, note: str = "") -> None:
        progress(first + done, n_users, note)

    return shifted


def _generate_shard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encode_prompt: Callable[[str], list[int]],
    shard: pl.DataFrame,
    config: SamplingConfig,
    n_samples: int,
    greedy: bool,
    rows: int,
    device: str | torch.device,
    progress: Progress,
    parse: Callable[[str], bool] | None,
    stream: str,
) -> pl.DataFrame:
    found = generate(
        model, tokenizer, [encode_prompt(prompt) for prompt in shard["prompt"]],
        shard["user_index"].to_numpy(), config, n_samples, greedy, rows, device, progress,
        stream=stream,
    )  # fmt: skip
    texts = tokenizer.batch_decode(
        [one.token_ids for one in found],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    texts = [text.strip() for text in texts]
    return pl.DataFrame(
        {
            "user_index": [one.user for one in found],
            "sample": [one.sample for one in found],
            "reasoning": texts,
            "n_tokens": [len(one.token_ids) for one in found],
            "malformed": [
                check_text(text, one.finished, config, parse)
                for text, one in zip(texts, found, strict=True)
            ],
        },
        schema=REASONINGS,
    )


def _digest(shard: pl.DataFrame, settings: str) -> str:
    parts = [settings, *map(str, shard["user_index"]), *shard["prompt"]]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _read_shard(path: Path, digest: str) -> pl.DataFrame | None:
    """The shard's table; None when it is missing, torn, or made from other prompts or settings."""
    try:
        if pl.read_parquet_metadata(path).get(_DIGEST) != digest:
            return None
        return check_table(pl.read_parquet(path), REASONINGS, str(path))
    except (OSError, pl.exceptions.PolarsError, BadInputError):
        return None


def _write_shard(table: pl.DataFrame, path: Path, digest: str) -> None:
    """Written beside, flushed to disk, renamed: a file of that name is always whole."""
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        table.write_parquet(file, compression="zstd", metadata={_DIGEST: digest})
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
