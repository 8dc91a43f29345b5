"""Whoever writes: shards are resumed, distrusted when damaged, checked, and told as progress."""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from recalign.config import SamplingConfig
from recalign.progress import silent
from recalign.reasonings.generation import (
    generate_reasonings,
    shard_size,
    write_shard,
    write_shards,
)
from recalign.schemas import PROMPTS
from recalign.writer import Asked, Written

CONFIG = SamplingConfig(max_new_tokens=6)
N_USERS = 7
USERS = range(10, 10 + N_USERS)


@dataclass
class Letters:
    """A writer that needs no model: its texts are looked up, by number of the sample.

    Texts end after max_new_tokens words; groups come from the last prompt to the first.
    """

    texts: list[str]
    read: list[str] = field(default_factory=list)

    def write(self, prompts, users, asked):
        self.read += prompts
        for prompt, user in reversed(list(zip(prompts, users, strict=True))):
            yield [self.one(prompt, user, sample, asked) for sample in reversed(asked.samples)]

    def one(self, prompt, user, sample, asked):
        words = self.texts[sample].format(prompt=prompt, seed=asked.sampling.seed).split(" ")
        most = asked.sampling.max_new_tokens
        text = " ".join(words[:most])
        return Written(user, sample, text, min(most, len(words)), finished=len(words) <= most)


@pytest.fixture(scope="module")
def prompts():
    return pl.DataFrame(
        {
            "user_index": USERS,
            "cutoff": [1] * N_USERS,
            "first_position": [0] * N_USERS,
            "items": [[1]] * N_USERS,
            "prompt": [f"prompt-{user}" for user in USERS],
        },
        schema=PROMPTS,
    )


TEXTS = ["{prompt} likes war films", "{prompt} likes sea films", "{prompt} {seed}", "no one knows"]


@dataclass(frozen=True)
class Run:
    """Write into `work`; returns the table and the prompts that the writer was given."""

    prompts: pl.DataFrame
    work: Path

    def __call__(self, prompts=None, shard_users=3, config=CONFIG, progress=silent, parse=None):
        prompts = self.prompts if prompts is None else prompts
        writer, asked = Letters(TEXTS), Asked(config, n_samples=3)
        table = generate_reasonings(
            lambda shards: write_shards(writer, shards, asked, parse, prompts.height, progress),
            prompts, asked, self.work, shard_users,
        )  # fmt: skip
        return table, writer.read


@pytest.fixture
def run(prompts, tmp_path):
    return Run(prompts, tmp_path / "work")


def test_every_text_lands_in_its_row_in_order_of_user_and_sample(run, prompts):
    table, read = run(prompts=prompts.sample(fraction=1, shuffle=True, seed=1))
    assert read == prompts["prompt"].to_list()
    assert table.select("user_index", "sample", "reasoning").rows() == [
        (user, sample, TEXTS[sample].format(prompt=f"prompt-{user}", seed=0))
        for user in USERS
        for sample in range(-1, 3)
    ]
    assert len(list(run.work.glob("shard-*.parquet"))) == 3


def test_finished_shards_are_read_and_missing_ones_written(run, prompts):
    first, read = run()
    assert read == prompts["prompt"].to_list()
    (run.work / "shard-00001.parquet").unlink()
    told = []
    second, read = run(progress=lambda done, total, note="": told.append((done, total)))
    assert read == prompts["prompt"][3:6].to_list()
    assert second.equals(first)
    assert told == [(5, 7), (6, 7), (7, 7)]


def test_the_result_does_not_depend_on_the_size_of_shards(run):
    first, _ = run(shard_users=3)
    second, read = run(shard_users=2)
    assert len(read) == N_USERS
    assert second.equals(first)


@pytest.mark.parametrize("damage", ["torn", "foreign", "empty"])
def test_a_damaged_shard_is_written_again(run, prompts, damage):
    first, _ = run()
    path = run.work / "shard-00002.parquet"
    content = {
        "torn": path.read_bytes()[:-40],
        "foreign": (run.work / "shard-00000.parquet").read_bytes(),
        "empty": b"",
    }
    path.write_bytes(content[damage])
    second, read = run()
    assert read == prompts["prompt"][6:].to_list()
    assert second.equals(first)


def test_shards_of_other_settings_are_not_mixed_in(run):
    first, _ = run()
    other, read = run(config=CONFIG.model_copy(update={"seed": 1}))
    assert len(read) == N_USERS
    assert other.filter(pl.col("sample") != 2).equals(first.filter(pl.col("sample") != 2))
    assert set(other.filter(sample=2)["reasoning"]) == {f"prompt-{user} 1" for user in USERS}


def test_a_draft_left_by_a_killed_run_is_in_nobodys_way(run):
    run.work.mkdir()
    (run.work / ".shard-00000.parquet.draft").write_bytes(b"half a file")
    table, _ = run()
    assert table.height == N_USERS * 4
    assert not list(run.work.glob(".*.draft"))


@pytest.mark.parametrize(
    ("text", "stripped", "malformed"),
    [
        ("likes war films", "likes war films", None),
        ("  likes war films ", "likes war films", None),
        ("likes sea films", "likes sea films", "ungrammatical"),
        ("likes war and sea films a lot", "likes war and sea films a", "unfinished"),
        ("war", "war", "short"),
        ("I cannot answer that", "I cannot answer that", "refusal"),
        (" ", "", "empty"),
        ("war war war war", "war war war war", "repetition"),
    ],
)
def test_every_writers_texts_are_stripped_and_checked(prompts, text, stripped, malformed):
    asked = Asked(CONFIG, 1, greedy=False)
    table = write_shard(Letters([text]), prompts[:1], asked, lambda text: "war" in text)
    assert table.select("reasoning", "malformed").rows() == [(stripped, malformed)]
    assert table["n_tokens"].to_list() == [min(6, len(text.split(" ")))]


def test_no_prompts_give_an_empty_table(run, prompts):
    table, read = run(prompts=prompts.clear())
    assert table.height == 0
    assert read == []


class Forgetful(Letters):
    """Loses the texts of the first prompt."""

    def write(self, prompts, users, asked):
        yield from list(super().write(prompts, users, asked))[:-1]


class Repeating(Letters):
    """Gives the texts of the last prompt again in place of the first one's."""

    def write(self, prompts, users, asked):
        given = list(super().write(prompts, users, asked))
        yield from [*given[:-1], given[0]]


@pytest.mark.parametrize("writer", [Forgetful, Repeating])
def test_a_writer_that_gives_other_texts_than_it_was_asked_for_is_stopped(prompts, writer):
    with pytest.raises(RuntimeError, match=f"{writer.__name__} gave .* not the 4 of each of 7"):
        write_shard(writer(TEXTS), prompts, Asked(CONFIG, 3))


def test_a_shard_holds_about_so_many_tokens_and_at_most_so_many_users(prompts):
    letters = len("prompt-10")
    asked = Asked(CONFIG, n_samples=3)  # and the greedy one: 4 texts of 6 tokens
    assert shard_size(prompts, asked, 100, int(5 * (letters / 4 + 24)) + 1) == 5
    assert shard_size(prompts, asked, 3, 10_000) == 3
    assert shard_size(prompts, asked, 100, 1) == 1
