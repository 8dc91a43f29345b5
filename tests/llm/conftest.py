"""Tiny random language models of several architectures, and a policy of one."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from recalign.policy import Policy

VOCABULARY = 24
STOP = 2
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 40, "max_position_embeddings": 128, "initializer_range": 0.3,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": STOP,
}  # fmt: skip


@pytest.fixture(scope="session")
def make_model():
    """A function from the name of an architecture to a model with fixed random weights."""

    def make(name):
        torch.manual_seed(0)
        model: PreTrainedModel
        match name:
            case "llama":
                model = LlamaForCausalLM(LlamaConfig(**SIZES))
            case "llama-gqa":
                model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2))
            case "qwen2":
                model = Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=1))
            case "gpt-neox":
                model = GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))
            case "gpt2":  # which learns its positions
                sizes = {k: v for k, v in SIZES.items() if k != "intermediate_size"}
                model = GPT2LMHeadModel(GPT2Config(**sizes))
            case "mistral":
                config = MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=16)
                model = MistralForCausalLM(config)
            case "bloom":
                model = BloomForCausalLM(
                    BloomConfig(**{k: SIZES[k] for k in ("vocab_size", "hidden_size")},
                                n_layer=2, n_head=4, initializer_range=0.3, pad_token_id=0,
                                bos_token_id=1, eos_token_id=STOP)
                )  # fmt: skip
        model.generation_config.eos_token_id = STOP
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_policy(make_model):
    """A policy of a random model; its words w3...w23 are its tokens 3...23."""

    def make(name="llama"):
        words = ["<pad>", "<bos>", "<eos>", *(f"w{n}" for n in range(3, VOCABULARY))]
        vocabulary = {word: index for index, word in enumerate(words)}
        inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>"
        )
        return Policy(make_model(name), tokenizer, "never", [STOP], 0)

    return make
