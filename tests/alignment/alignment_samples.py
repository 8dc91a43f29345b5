"""Two tiny architectures and pairs whose chosen texts are learnable."""

import numpy as np
import polars as pl
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

WORDS = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(3, 40))]


def llama(spread: float = 0.3) -> PreTrainedModel:
    """Multi-head attention, tied embeddings, fresh from the same seed every time.

    With weights as wide as `spread` = 0.3, log-probabilities differ by nats, not by rounding.
    """
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=True,
            initializer_range=spread,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def qwen2() -> PreTrainedModel:
    """Grouped-query attention (4 heads share 2 keys), biases, untied head."""
    torch.manual_seed(1)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            initializer_range=0.3,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def make_pairs(n: int, n_rejected: int | None = None) -> pl.DataFrame:
    """n users' pairs: chosen texts use the words w3-w9, rejected ones w20-w39.

    `n_rejected` makes `rejected` a list of so many texts; without it, a text.
    """
    random = np.random.default_rng(3)

    def text(low: int, high: int, shortest: int, longest: int) -> str:
        length = int(random.integers(shortest, longest + 1))
        return " ".join(f"w{i}" for i in random.integers(low, high, length))

    rows = []
    for user in range(n):
        worse = [text(20, 40, 2, 5) for _ in range(n_rejected or 1)]
        rows.append(
            {
                "user_index": user,
                "prompt": text(3, 40, 4, 9),
                "chosen": text(3, 10, 2, 5),
                "rejected": worse if n_rejected else worse[0],
            }
        )
    return pl.DataFrame(rows, schema_overrides={"user_index": pl.Int32})
