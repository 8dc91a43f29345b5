"""Titles as tokens: one each in the embedded tokenizer, whole lines in any other."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recalign.config import LoadedModelConfig, TitlePromptConfig
from recalign.embedded.title_tokenizer import title_tokenizer
from recalign.llm.load import load_policy
from recalign.policy import Policy, in_lines
from recalign.titles.prompts import TitlePrompts

TITLES = ["", "Heat (1995)", "Alien  3", "Aliens", "é 東京; <x>"]


def save_llama(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def embedded(tmp_path: Path) -> Policy:
    """Written to disk and opened as any model is."""
    save_llama(title_tokenizer(TITLES), tmp_path)
    return load_policy(tmp_path, LoadedModelConfig())


@pytest.fixture
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that has merged ")" with the line break behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["A (1)\n", "B (2)\n"] * 10, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>",
        chat_template="{% for m in messages %}[{{ m['content'] }}]{% endfor %}",
    )  # fmt: skip


def test_the_embedded_tokenizer_has_one_token_per_title(embedded: Policy) -> None:
    policy = in_lines(embedded)
    assert [policy.encode_completion(title) for title in TITLES[1:]] == [[4], [5], [6], [7]]
    text = TitlePrompts(TitlePromptConfig(), TITLES).text([3, 1, 4])
    assert policy.encode_prompt(text) == [1, 6, 4, 7]
    assert policy.encode_prompt("") == [1]
    assert [policy.decode([token]) for token in (4, 5, 6, 7)] == TITLES[1:]
    assert policy.decode([4, policy.tokenizer.eos_token_id]) == "Heat (1995)"
    assert set(policy.eos_ids) >= {4, 5, 6, 7}, "every title is a whole answer"


def test_a_title_may_be_spelled_like_a_special_token(tmp_path: Path) -> None:
    titles = ["", "<s>", "</s>", "<pad>", "<unk>", "Heat (1995)"]
    save_llama(title_tokenizer(titles), tmp_path)
    policy = in_lines(load_policy(tmp_path, LoadedModelConfig()))
    assert [policy.encode_completion(title) for title in titles[1:]] == [[4], [5], [6], [7], [8]]
    assert policy.encode_prompt("<s>\n</s>\n") == [1, 4, 5]
    assert [policy.decode([token]) for token in range(4, 9)] == titles[1:]


def test_a_title_that_has_no_token_is_the_unknown_one(embedded: Policy) -> None:
    unknown = embedded.tokenizer.unk_token_id
    assert in_lines(embedded).encode_completion("Heat") == [unknown]


def test_no_token_crosses_a_line_so_that_a_longer_history_is_the_same_tokens_and_more(
    bytes_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_llama(bytes_tokenizer, tmp_path)
    policy = in_lines(load_policy(tmp_path, LoadedModelConfig()))
    prompts = TitlePrompts(TitlePromptConfig(), TITLES)
    longer = policy.encode_prompt(prompts.text([1, 2, 4, 3]))
    shorter = policy.encode_prompt(prompts.text([1, 2, 4]))
    assert shorter[0] == bytes_tokenizer.bos_token_id
    assert longer == shorter + policy.encode_completion(TITLES[3])
    assert policy.tokenizer.decode(longer[1:]) == prompts.text([1, 2, 4, 3])
    for title in TITLES[1:]:
        *inside, last = policy.encode_completion(title)
        assert last in policy.eos_ids
        assert not set(inside) & set(policy.eos_ids)
        assert policy.decode([*inside, last]) == f"{title}\n"


def test_candidates_are_asked_for_in_the_chat_template_and_answers_end_in_eos(
    bytes_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_llama(bytes_tokenizer, tmp_path)
    policy = load_policy(tmp_path, LoadedModelConfig())
    assert policy.tokenizer.decode(policy.encode_prompt("A or B?")) == "[A or B?]"
    assert policy.encode_completion("A")[-1] == bytes_tokenizer.eos_token_id
    assert policy.eos_ids == [bytes_tokenizer.eos_token_id]
