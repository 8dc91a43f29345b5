"""Generation in shards: resumes, distrusts what it finds, and does not depend on the cut."""

import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recalign.config import SamplingConfig
from recalign.reasonings.shards import generate_in_shards
from recalign.schemas import PROMPTS

CONFIG = SamplingConfig(max_new_tokens=6)
N_USERS = 7


@pytest.fixture(scope="module")
def tokenizer():
    words = ["<pad>", "<bos>", "<eos>", *(f"w{n}" for n in range(3, 24))]
    vocabulary = {word: index for index, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture(scope="module")
def prompts():
    return pl.DataFrame(
        {
            "user_index": range(10, 10 + N_USERS),
            "cutoff": [1] * N_USERS,
            "first_position": [0] * N_USERS,
            "items": [[1]] * N_USERS,
            "prompt": [f"w{3 + n} w{20 - n} w5" for n in range(N_USERS)],
        },
        schema=PROMPTS,
    )


@pytest.fixture
def run(make_model, tokenizer, prompts, tmp_path):
    """Generate into tmp_path; returns the table and the prompts that were really generated."""
    model = make_model("llama")

    def call(shard_users=3, config=CONFIG, prompts=prompts, work=tmp_path / "work", **options):
        encoded = []

        def encode(prompt):
            encoded.append(prompt)
            return tokenizer.encode(prompt, add_special_tokens=False)

        table = generate_in_shards(
            model, tokenizer, encode, prompts, config, n_samples=3, greedy=True, work=work,
            shard_users=shard_users, **options,
        )  # fmt: skip
        return table, encoded

    call.work = tmp_path / "work"
    return call


def test_the_result_is_sorted_and_does_not_depend_on_the_shard_size(run, prompts, tmp_path):
    whole, _ = run(shard_users=100)
    order = [(user, sample) for user in range(10, 10 + N_USERS) for sample in range(-1, 3)]
    assert whole.select("user_index", "sample").rows() == order
    shuffled = prompts.sample(fraction=1, shuffle=True, seed=1)
    for shard_users in (1, 3):
        work = tmp_path / str(shard_users)
        table, _ = run(shard_users, prompts=shuffled, work=work, rows=5)
        assert table.equals(whole)
        assert len(list(work.glob("shard-*.parquet"))) == -(-N_USERS // shard_users)


def test_finished_shards_are_read_and_missing_ones_generated(run, prompts):
    first, encoded = run()
    assert encoded == prompts["prompt"].to_list()
    (run.work / "shard-00001.parquet").unlink()
    told = []
    second, encoded = run(progress=lambda done, total, note="": told.append((done, total)))
    assert encoded == prompts["prompt"][3:6].to_list()
    assert second.equals(first)
    assert told == [(7, 7), (7, 7)]


@pytest.mark.parametrize("damage", ["torn", "foreign", "empty"])
def test_a_damaged_shard_is_generated_again(run, prompts, damage):
    first, _ = run()
    path = run.work / "shard-00002.parquet"
    content = {
        "torn": path.read_bytes()[:-40],
        "foreign": (run.work / "shard-00000.parquet").read_bytes(),
        "empty": b"",
    }
    path.write_bytes(content[damage])
    second, encoded = run()
    assert encoded == prompts["prompt"][6:].to_list()
    assert second.equals(first)


def test_shards_of_another_size_or_setting_are_not_mixed_in(run):
    first, _ = run(shard_users=3)
    second, encoded = run(shard_users=2)
    assert len(encoded) == N_USERS
    assert second.equals(first)
    hotter, encoded = run(shard_users=2, config=SamplingConfig(max_new_tokens=6, temperature=2))
    assert len(encoded) == N_USERS
    assert not hotter.equals(first)


def test_a_draft_left_by_a_killed_run_is_in_nobodys_way(run):
    run.work.mkdir()
    (run.work / "shard-00000.tmp").write_bytes(b"half a file")
    table, _ = run()
    assert table.height == N_USERS * 4
    assert not list(run.work.glob("*.tmp"))


def test_texts_and_their_faults_reach_the_table(run):
    config = SamplingConfig(max_new_tokens=15, min_words=1)
    table, _ = run(config=config, parse=lambda text: "w7" in text)
    cut = table.filter(pl.col("n_tokens") == 15)
    assert set(cut["malformed"]) <= {"unfinished", "repetition"}
    whole = table.filter(pl.col("n_tokens") < 15, pl.col("reasoning") != "")
    whole = whole.filter(pl.col("malformed").ne_missing("repetition"))
    named = table.filter(pl.col("malformed") == "ungrammatical")
    assert named.height > 0
    assert named.height < whole.height
    assert named.equals(whole.filter(~pl.col("reasoning").str.contains(r"\bw7\b")))


def test_no_prompts_give_an_empty_table(run, prompts):
    table, encoded = run(prompts=prompts.clear())
    assert table.height == 0
    assert encoded == []
