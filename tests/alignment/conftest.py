"""A tokenizer of 40 words and the samples of `alignment_samples` as fixtures."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from recalign.alignment.train import Known, align
from recalign.config import AlignmentConfig
from recalign.policy import Policy
from recalign.training.run import Trained
from tests.alignment.alignment_samples import (
    CONFIG,
    WORDS,
    Run,
    asked,
    at,
    llama,
    make_pairs,
    qwen2,
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word; texts w3 .. w39."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def plain(tokenizer: PreTrainedTokenizerFast) -> Policy:
    """Texts to token ids, completions with the end token (1); of a model that nobody asks."""
    return asked(llama(), tokenizer)


@pytest.fixture(params=[llama, qwen2], ids=["llama", "qwen2"])
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Each architecture in turn."""
    return request.param().eval()


@pytest.fixture
def tiny_llama(tmp_path: Path) -> PreTrainedModel:
    """The llama, saved and loaded, so that it has a name like a real one."""
    llama().save_pretrained(tmp_path / "llama")
    return LlamaForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)


@pytest.fixture
def pairs() -> pl.DataFrame:
    """48 users, one pair each."""
    return make_pairs(48)


@pytest.fixture
def run(tokenizer: PreTrainedTokenizerFast) -> Run:
    """align with the sample tokenizer: run(model, pairs, folder, config=..., ...)."""

    def call(
        model: PreTrainedModel | PeftModel,
        pairs: pl.DataFrame,
        place: Path,
        config: AlignmentConfig = CONFIG,
        reference: Known = "initial",
        **how: Any,
    ) -> Trained:
        return align(asked(model, tokenizer), pairs, config, at(place, **how), reference)

    return call
