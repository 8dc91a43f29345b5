"""The writer in this process: texts of a policy's own tokens, the same in every cut of the work."""

import json
from dataclasses import replace

import polars as pl
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from recalign.config import SamplingConfig
from recalign.llm.generate import Room, generate
from recalign.llm.local_writer import LocalWriter
from recalign.reasonings.generation import generate_reasonings, write_shards
from recalign.schemas import PROMPTS
from recalign.writer import Asked

ASKED = Asked(SamplingConfig(max_new_tokens=6), 3)
USERS = range(10, 17)
WORDS = [[3 + n, 20 - n, 5][: 1 + n % 3] for n in range(len(USERS))]
TEXTS = [" ".join(f"w{token}" for token in tokens) for tokens in WORDS]


def test_texts_are_the_decoded_tokens_of_the_encoded_prompts(make_policy):
    policy = make_policy()
    written = [
        one for some in LocalWriter(policy, Room(9)).write(TEXTS, USERS, ASKED) for one in some
    ]
    drawn = [
        one for some in generate(policy.model, WORDS, USERS, ASKED, [2], Room(9)) for one in some
    ]
    assert [(one.user, one.sample, one.n_tokens, one.finished) for one in written] == [
        (one.user, one.sample, len(one.token_ids), one.finished) for one in drawn
    ]
    special = {0: "<pad>", 1: "<bos>", 2: "<eos>"}
    for one, tokens in zip(written, drawn, strict=True):
        words = [special.get(token, f"w{token}") for token in tokens.token_ids]
        assert one.text.split() == [word for word in words if word not in ("<pad>", "<eos>")]


@pytest.mark.parametrize("shard_users", [1, 3])
def test_reasonings_do_not_depend_on_shards_rows_or_the_order_of_prompts(
    make_policy, tmp_path, shard_users
):
    policy = make_policy()
    n = len(USERS)
    columns = [USERS, [1] * n, [0] * n, [[1]] * n, TEXTS]
    prompts = pl.DataFrame(dict(zip(PROMPTS, columns, strict=True)), schema=PROMPTS)

    def written(prompts, shard_users, rows):
        work = tmp_path / f"{shard_users} {rows}"
        writer = LocalWriter(policy, Room(rows))
        return generate_reasonings(
            lambda shards: write_shards(writer, shards, ASKED, None, n),
            prompts, ASKED, work, shard_users,
        )  # fmt: skip

    whole = written(prompts, 100, 2048)
    assert whole["reasoning"].n_unique() > n
    shuffled = prompts.sample(fraction=1, shuffle=True, seed=1)
    assert written(shuffled, shard_users, rows=5).equals(whole)


def with_words(policy, **instead):
    """The policy with some words of its tokenizer exchanged."""
    backend = json.loads(policy.tokenizer.backend_tokenizer.to_str())
    words = backend["model"]["vocab"]
    for old, new in instead.items():
        words[new] = words.pop(old)
    told = {"eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), **told
    )
    return replace(policy, tokenizer=tokenizer)


def test_sentences_end_at_the_marks_of_languages_without_blanks_too(make_policy):
    exchanged = {
        "w5": "w5。",
        "w6": "（他？）",
        "w7": "」！”",
        "w8": "w8；",
        "w9": "w9，",
        "w10": "w.”",
    }
    assert with_words(make_policy(), **exchanged).sentence_ends() == [5, 6, 7]


def test_a_text_may_end_with_its_first_sentence_which_keeps_its_full_stop(make_policy):
    policy = with_words(make_policy(), w5="w5.")
    assert policy.sentence_ends() == [5]

    def written(**how):
        asked = Asked(SamplingConfig(max_new_tokens=30, **how), 6)
        return [one for some in LocalWriter(policy).write(TEXTS, USERS, asked) for one in some]

    n_cut = 0
    for whole, one in zip(written(), written(ends_at="sentence"), strict=True):
        first, stop, _ = whole.text.partition("w5.")
        assert one.text == first + stop
        assert one.finished == (whole.finished or bool(stop))
        assert len(one.text.split()) <= one.n_tokens <= whole.n_tokens
        n_cut += bool(stop)
    assert 10 < n_cut < len(USERS) * 7
