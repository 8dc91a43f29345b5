"""Reasonings by any writer, in shards of users: what a killed run has finished is kept."""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

import polars as pl

from recalign.artifacts.shards import tables_in_shards
from recalign.progress import Progress, silent
from recalign.reasonings.questions import asked_as, one_text, questions_of
from recalign.reasonings.texts import check_text
from recalign.schemas import REASONINGS
from recalign.writer import Asked, Writer, Written

LETTERS_PER_TOKEN = 4  # of English

IsGrammatical = Callable[[str], bool]
"""Says whether a text follows the grammar of the demonstrations."""

WriteShards = Callable[[list[pl.DataFrame]], Iterable[tuple[int, pl.DataFrame]]]
"""Gives, in any order, the place and the reasonings of each of these shards of prompts."""


def generate_reasonings(
    write: WriteShards, prompts: pl.DataFrame, asked: Asked, work: Path, shard_users: int
) -> pl.DataFrame:
    """The `reasonings` of every prompt (`PROMPTS`), sorted by user and sample.

    `write` makes those that `work`, a folder that belongs to one policy, does not hold yet. Every
    `shard_users` prompts become a file there; a shard that is there, whole, and of the same
    prompts and settings is read instead. The result does not depend on `shard_users`.
    """
    prompts = prompts.sort("user_index")
    settings = [asked.sampling.identity(), asked.n_samples, asked.greedy, asked.stream]
    shards = list(prompts.iter_slices(shard_users)) if prompts.height else []

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for place, table in write([shards[number] for number in missing]):
            yield missing[place], table

    keys = [_digest(shard, json.dumps(settings, sort_keys=True)) for shard in shards]
    tables = tables_in_shards(keys, compute, work, REASONINGS)
    empty = pl.DataFrame(schema=REASONINGS)
    return pl.concat([empty, *tables]).sort("user_index", "sample")


def shard_size(prompts: pl.DataFrame, asked: Asked, most_users: int, most_tokens: int) -> int:
    """Users per shard, so that it holds at most this many of them and, about, of tokens."""
    letters = prompts["prompt"].str.len_chars().mean() or 0.0
    questions = max((len(questions_of(prompt)) for prompt in prompts["prompt"]), default=1)
    texts = len(asked.samples) * asked.sampling.max_new_tokens * questions
    per_user = float(letters) / LETTERS_PER_TOKEN + texts  # type: ignore[arg-type]
    return max(1, min(most_users, int(most_tokens / per_user)))


def write_shards(
    writer: Writer,
    shards: list[pl.DataFrame],
    asked: Asked,
    parse: IsGrammatical | None,
    n_users: int,
    progress: Progress = silent,
) -> Iterator[tuple[int, pl.DataFrame]]:
    """A `WriteShards` that writes here and now, one shard after the other.

    n_users: of the whole run. Progress counts users, those of shards made before included.
    """
    done = n_users - sum(shard.height for shard in shards)
    for place, shard in enumerate(shards):
        yield place, write_shard(writer, shard, asked, parse, _from(progress, done, n_users))
        done += shard.height


def write_shard(
    writer: Writer,
    shard: pl.DataFrame,
    asked: Asked,
    parse: IsGrammatical | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The reasonings of one shard of prompts, each with what is wrong with its text.

    A prompt of several questions is asked one after the other, and its answers are one text.
    Raises RuntimeError where the writer gave other texts than it was asked for.
    """
    users = shard["user_index"].to_list()
    questions = [questions_of(prompt) for prompt in shard["prompt"]]
    rounds = max(map(len, questions), default=1)
    answers: defaultdict[tuple[int, int], list[Written]] = defaultdict(list)
    for number in range(rounds):
        own = {
            user: prompts[number]
            for user, prompts in zip(users, questions, strict=True)
            if number < len(prompts)
        }
        told = _part_of(progress, number, rounds, len(users))
        for one in _written(writer, own, asked_as(asked, number), told):
            answers[one.user, one.sample].append(one)
    return _table(dict(sorted(answers.items())), asked, parse)


def _written(
    writer: Writer, prompts: dict[int, str], asked: Asked, progress: Progress
) -> list[Written]:
    """All texts of one question, asked of these users."""
    written: list[Written] = []
    started, n_tokens = time.monotonic(), 0
    for texts in writer.write(list(prompts.values()), list(prompts), asked):
        written += texts
        n_tokens += sum(one.n_tokens for one in texts)
        speed = n_tokens / max(time.monotonic() - started, 1e-9)
        progress(len(written) // len(asked.samples), len(prompts), f"{speed:,.0f} tokens/s")
    given = sorted((one.user, one.sample) for one in written)
    if given != sorted(product(prompts, asked.samples)):
        raise RuntimeError(
            f"{type(writer).__name__} gave {len(written)} texts, not the {len(asked.samples)} of "
            f"each of {len(prompts)} prompts that it was asked for"
        )
    return written


def _table(
    answers: dict[tuple[int, int], list[Written]], asked: Asked, parse: IsGrammatical | None
) -> pl.DataFrame:
    """REASONINGS; a text is malformed as the first of its answers that is."""
    reasons = [
        [check_text(one.text.strip(), one.finished, asked.sampling, parse) for one in own]
        for own in answers.values()
    ]
    return pl.DataFrame(
        {
            "user_index": [user for user, _ in answers],
            "sample": [sample for _, sample in answers],
            "reasoning": [one_text([one.text for one in own]) for own in answers.values()],
            "n_tokens": [sum(one.n_tokens for one in own) for own in answers.values()],
            "malformed": [next(filter(None, own), None) for own in reasons],
        },
        schema=REASONINGS,
    )


def _part_of(progress: Progress, number: int, rounds: int, n_users: int) -> Progress:
    """The progress of one question, told as so many of the users."""

    def scaled(done: int, total: int, note: str = "") -> None:
        progress((number * n_users + done) // rounds, n_users, note)

    return scaled


def _from(progress: Progress, first: int, n_users: int) -> Progress:
    """The progress of one shard, told as progress of the whole."""

    def shifted(done: int, total: int, note: str = "") -> None:
        progress(first + done, n_users, note)

    return shifted


def _digest(shard: pl.DataFrame, settings: str) -> str:
    parts = [settings, *map(str, shard["user_index"]), *shard["prompt"]]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
