"""Generation in shards of users: what a killed run has finished is not generated again."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.artifacts.shards import tables_in_shards
from recalign.config import SamplingConfig
from recalign.llm.generate import generate
from recalign.progress import Progress, silent
from recalign.reasonings.texts import check_text
from recalign.schemas import REASONINGS

Write = Callable[[list[pl.DataFrame]], Iterable[tuple[int, pl.DataFrame]]]
"""Gives, in any order, the place and the reasonings of each of these shards of prompts."""


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

    Shard after shard, here and now; see `collect_shards` for what is kept in `work` and
    `generate` for the rest. Progress counts users.
    """

    def write(shards: list[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
        done = prompts.height - sum(shard.height for shard in shards)
        for place, shard in enumerate(shards):
            yield place, write_shard(
                model, tokenizer, encode_prompt, shard, config, n_samples, greedy, rows, device,
                _from(progress, done, prompts.height), parse=parse, stream=stream,
            )  # fmt: skip
            done += shard.height
            progress(done, prompts.height)

    return collect_shards(write, prompts, config, n_samples, greedy, work, shard_users, stream)


def collect_shards(
    write: Write,
    prompts: pl.DataFrame,
    config: SamplingConfig,
    n_samples: int,
    greedy: bool,
    work: Path,
    shard_users: int,
    stream: str,
) -> pl.DataFrame:
    """The reasonings of every prompt, those that `work` does not hold yet made by `write`.

    `work` belongs to one policy. Each `shard_users` prompts become a file there; a shard that is
    there, whole, and of the same prompts and settings is read instead. The result does not depend
    on `shard_users`.
    """
    prompts = prompts.sort("user_index")
    settings = json.dumps([config.identity(), n_samples, greedy, stream], sort_keys=True)
    shards = list(prompts.iter_slices(shard_users)) if prompts.height else []

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for place, table in write([shards[number] for number in missing]):
            yield missing[place], table

    keys = [_digest(shard, settings) for shard in shards]
    tables = tables_in_shards(keys, compute, work, REASONINGS)
    empty = pl.DataFrame(schema=REASONINGS)
    return pl.concat([empty, *tables]).sort("user_index", "sample")


def write_shard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encode_prompt: Callable[[str], list[int]],
    shard: pl.DataFrame,
    config: SamplingConfig,
    n_samples: int,
    greedy: bool,
    rows: int,
    device: str | torch.device,
    progress: Progress = silent,
    *,
    parse: Callable[[str], bool] | None,
    stream: str,
) -> pl.DataFrame:
    """The reasonings of one shard of prompts, each with what is wrong with its text."""
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


def _from(progress: Progress, first: int, n_users: int) -> Progress:
    """The progress of one shard, told as progress of the whole."""

    def shifted(done: int, total: int, note: str = "") -> None:
        progress(first + done, n_users, note)

    return shifted


def _digest(shard: pl.DataFrame, settings: str) -> str:
    parts = [settings, *map(str, shard["user_index"]), *shard["prompt"]]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
