"""Two tiny architectures, pairs whose chosen texts are learnable, and how they are aligned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from recalign.config import AlignmentConfig
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS
from recalign.training.run import Trained, TrainingRun

CONFIG = AlignmentConfig(
    epochs=2,
    batch_size=8,
    micro_batch_size=4,
    learning_rate=1e-2,
    lora_rank=4,
    lora_alpha=8,
    held_out=0.25,
    evaluations=3,
)
Run = Callable[..., Trained]
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


def table(*rows: tuple[int, str, list[str]], smoothing: list[float] | None = None) -> pl.DataFrame:
    """COMPLETIONS of (user, prompt, [chosen, *rejected])."""
    columns = [
        {
            "user_index": user, "prompt": prompt, "completions": texts, "chosen": 0,
            "rejected": list(range(1, len(texts))),
            "smoothing": smoothing or [0.0] * (len(texts) - 1),
        }
        for user, prompt, texts in rows
    ]  # fmt: skip
    return pl.DataFrame(columns, schema=COMPLETIONS)


def asked(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast) -> Policy:
    """The model with the sample tokenizer, in plain text."""
    wrapped: Any = model  # a policy is typed by the model inside
    return Policy(wrapped, tokenizer, "never", eos_ids=[1], pad_id=0)


def at(place: Path, **how: Any) -> TrainingRun:
    """An alignment in this folder."""
    return TrainingRun("alignment", place / "work", place / "folder", **how)


def make_pairs(n: int, n_rejected: int = 1) -> pl.DataFrame:
    """n users' COMPLETIONS: chosen texts use the words w3-w9, rejected ones w20-w39."""
    random = np.random.default_rng(3)

    def text(low: int, high: int, shortest: int, longest: int) -> str:
        length = int(random.integers(shortest, longest + 1))
        return " ".join(f"w{i}" for i in random.integers(low, high, length))

    rows = []
    for user in range(n):
        worse = [text(20, 40, 2, 5) for _ in range(n_rejected)]
        rows.append((user, text(3, 40, 4, 9), [text(3, 10, 2, 5), *worse]))
    return table(*rows)


def policy() -> PreTrainedModel:
    """Near to indifferent, so that few steps teach it something general."""
    return llama(spread=0.1)


def adapter_bytes(place: Path) -> bytes:
    """The adapter that `run` has written to `place`."""
    return (place / "folder" / "adapter_model.safetensors").read_bytes()


def saved_adapter(place: Path) -> dict[str, torch.Tensor]:
    """Its tensors by name."""
    return load_file(place / "folder" / "adapter_model.safetensors")


class Fails(TrainerCallback):
    """Raises in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt
