"""Stages that ask an LLM for titles: what it prefers, and its log-probabilities as reference."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recalign.alignment.reference import FILE, ReferenceLogProbs
from recalign.alignment.rows import encode_pairs
from recalign.config import RosePOAlignmentConfig, SftConfig, TitlePromptConfig
from recalign.embedded.title_tokenizer import title_tokenizer
from recalign.errors import UserError
from recalign.llm.storage import MODEL, SFT
from recalign.rejections.strategies import NOT_ABOVE
from recalign.stored import open_policy
from recalign.titles.likelihood import TitleScorer
from recalign.titles.names import distinct_titles
from tasks.engine.stage import Stage
from tasks.reference import reference
from tests.tasks.pair_steps import PLAIN, rejected, smoothed, started, tables, world

QUESTION = TitlePromptConfig(format="candidates", n_candidates=6)


@pytest.fixture
def walk(copy):
    return started(copy)


def words(titles):
    """A tokenizer of single words, so that a title has several tokens."""
    known = {word for title in titles for word in title.split()}
    vocabulary = {
        word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *sorted(known)])
    }
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>",
    )  # fmt: skip


def untrained(walk, config):
    """An artifact as the stage sft writes it, of an LLM with wide random weights."""

    def body(job, config):
        titles = distinct_titles(tables(walk).items)
        tokenizer = title_tokenizer(titles) if config.format == "history" else words(titles)
        torch.manual_seed(3)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48,
                num_hidden_layers=1, num_attention_heads=2, initializer_range=0.3,
                tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip
        model.save_pretrained(job.draft.path(MODEL))
        tokenizer.save_pretrained(job.draft.path(MODEL))
        job.draft.path(SFT).write_text(config.model_dump_json())

    return walk(Stage("sft", 1, body), config)


def log_probs(policy, prompt, titles):
    """log p of each title after the prompt, title by title in plain sequences."""
    found = []
    for title in titles:
        ids, answer = policy.encode_prompt(prompt), policy.encode_completion(title)
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids + answer])).logits[0].double()
        table = logits.log_softmax(-1)
        found.append(sum(table[len(ids) + t - 1, token].item() for t, token in enumerate(answer)))
    return np.array(found)


def test_self_hard_rejects_what_the_model_itself_finds_likeliest_in_the_catalogue(walk):
    sft = untrained(walk, SftConfig())
    made, table = rejected(walk, sft=sft, strategy="self_hard", pool=0)
    policy = open_policy(walk.store.open(sft), walk.runtime.root, "cpu")
    titles, sequences = distinct_titles(tables(walk).items), tables(walk).sequences
    for row in table.sample(6, seed=1).iter_rows(named=True):
        scores = np.array([-np.inf, *log_probs(policy, row["prompt"], titles[1:])])
        assert row["chosen_score"] == pytest.approx(scores[row["chosen"]], abs=1e-4)
        scores[sequences.slice(row["user_index"], 0, row["position"] + 1)] = -np.inf
        assert row["rejected"] == [scores.argmax()]
        assert row["scores"] == [pytest.approx(scores.max(), abs=1e-4)]
        assert row["scores"][0] > row["chosen_score"]
    manifest = walk.store.open(made).manifest
    assert manifest.rows + manifest.dropped.get(NOT_ABOVE, 0) == 150
    assert manifest.figures["strategies"][0]["above_truth"] == 1


@pytest.mark.parametrize("pool", [0, 20])
def test_as_few_prompts_are_read_at_once_as_asked(walk, monkeypatch, pool):
    sft = untrained(walk, SftConfig())
    sizes, read = [], TitleScorer.read

    def counted(self, prompts):
        sizes.append(len(prompts))
        return read(self, prompts)

    monkeypatch.setattr(TitleScorer, "read", counted)
    few = replace(walk, runtime=walk.runtime.model_copy(update={"generation_rows": 7}))
    rejected(few, sft=sft, strategy="self_hard", pool=pool)
    assert max(sizes) == 7


def test_a_model_that_is_asked_with_candidates_prefers_among_those_it_is_shown(walk):
    settings = SftConfig(kind="huggingface", model="anywhere", format="candidates", n_candidates=6)
    sft = untrained(walk, settings)
    _, table = rejected(walk, QUESTION, sft, strategy="self_hard", n_pairs=40)
    policy = open_policy(walk.store.open(sft), walk.runtime.root, "cpu")
    titles = distinct_titles(tables(walk).items)
    for row in table.sample(5, seed=1).iter_rows(named=True):
        shown = row["candidates"]
        scores = log_probs(policy, row["prompt"], [titles[item] for item in shown])
        assert row["rejected"] == [shown[scores.argmax()]]
        assert row["scores"] == [pytest.approx(scores.max(), abs=1e-4)]


def test_the_reference_is_of_the_rows_that_alignment_makes_of_any_smoothing(walk):
    sft = untrained(walk, SftConfig())
    pairs, table = rejected(walk, sft=sft, strategy="self_softmax", n_rejected=3)
    settings = RosePOAlignmentConfig(max_length=16)  # prompts of more than 15 titles are left out
    inputs = world(walk) | {"sft": sft, "rejections": pairs}
    opened = walk.store.open(walk(reference, settings.for_reference(), inputs))
    scored = ReferenceLogProbs.load(opened.path(FILE))
    policy = open_policy(walk.store.open(sft), walk.runtime.root, "cpu")
    _, preferences = smoothed(walk, pairs, walk.done["oracle"])
    rows = encode_pairs(preferences, policy, 16)
    assert len(rows) == len(scored.chosen) == opened.manifest.rows < len(table)
    assert opened.manifest.dropped == {"too_long": len(table) - len(rows)}
    kept = preferences.filter(pl.col("prompt").str.count_matches("\n") < 15)
    for i in range(0, len(rows), 40):
        row = kept.row(i, named=True)
        expected = log_probs(policy, row["prompt"], row["completions"])
        found = [scored.chosen[i], *scored.rejected[i]]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_reference_without_a_pair_that_fits_says_which_setting_is_too_low(walk):
    sft = untrained(walk, SftConfig())
    pairs, _ = rejected(walk, PLAIN)
    inputs = world(walk) | {"sft": sft, "rejections": pairs}
    settings = RosePOAlignmentConfig().for_reference().model_copy(update={"max_length": 2})
    with pytest.raises(UserError, match=r"too_long: \d+\): raise alignment\.max_length"):
        walk(reference, settings, inputs)


def test_the_reference_is_one_for_all_batch_sizes(walk):
    sft = untrained(walk, SftConfig())
    pairs, _ = rejected(walk, PLAIN)
    inputs = world(walk) | {"sft": sft, "rejections": pairs}
    one = walk(reference, RosePOAlignmentConfig().for_reference(), inputs)
    smaller = RosePOAlignmentConfig(micro_batch_size=8)
    assert walk(reference, smaller.for_reference(), inputs) == one
