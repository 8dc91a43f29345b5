"""The LLM that names the next item: how it is asked, and how it is fine-tuned to answer."""

from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, Config, Seed, only_when
from recalign.config.policy import EMBEDDED, LoadedModelConfig
from recalign.config.small_llama import SmallLlamaConfig
from recalign.config.training import WeightsConfig

QUESTIONS = only_when(format="candidates")
WINDOWS = replace(only_when(format="history"), unless_default=True)


class TitlePromptConfig(Config):
    """How the LLM is shown a history and asked for the next title."""

    format: Literal["history", "candidates"] = "history"
    """A plain list of titles that the LLM continues, or a question with candidates to pick from."""
    template: str = Field("next_item", json_schema_extra=NOT_IDENTITY)
    """Question with candidates: a packaged template's name or a file's path."""
    history_items: int = Field(16, ge=1, le=1000)
    """Most recent items shown."""
    n_candidates: int = Field(20, ge=2, le=1000, json_schema_extra=QUESTIONS)
    """Titles to pick from, the true one among them."""


class TitleModelConfig(SmallLlamaConfig):
    """A small Llama with one token per title, trained from scratch (no download)."""

    hidden: int = Field(96, ge=16, le=2048)
    """Width of the model."""
    item_text: bool = True
    """Start title tokens at their texts' embeddings: a real LLM knows what a title means."""
    encoder: str = Field("minilm", json_schema_extra=only_when(item_text=True))
    """Sentence encoder of the item texts: 'minilm' (packaged), or a folder or owner/name@commit."""


class SftConfig(TitlePromptConfig, WeightsConfig, LoadedModelConfig):
    """The LLM learns to answer with the next title (TRL's SFTTrainer)."""

    heading = "The LLM and its supervised fine-tuning"
    first = ("kind", "model", "format", "learning_rate", "epochs")

    bootstrap: TitleModelConfig = Field(TitleModelConfig(), json_schema_extra=EMBEDDED)
    """The embedded small LLM."""
    chat_template: Literal["auto", "never"] = Field(
        "auto", json_schema_extra=only_when(kind="huggingface", format="candidates")
    )
    """Wrap questions in the tokenizer's chat template when it has one."""
    method: Literal["lora", "full"] = "full"
    """Train a low-rank adapter, or all weights."""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """Peak learning rate of AdamW, warmed up and decayed linearly."""
    epochs: int = Field(16, ge=1, le=1000)
    """Most passes over the training windows."""
    batch_size: int = Field(32, ge=1, le=4096)
    """Sequences per optimiser step (of which micro_batch_size are in memory at once)."""
    micro_batch_size: int = Field(32, ge=1, le=4096)
    """Sequences per forward pass; must divide batch_size."""
    n_examples: int = Field(20_000, ge=10, le=100_000_000, json_schema_extra=QUESTIONS)
    """Most questions to train on; users and positions are drawn."""
    max_windows: int = Field(0, ge=0, le=100_000_000, json_schema_extra=WINDOWS)
    """Most windows of titles to train on, drawn among all users' histories; 0: all."""
    n_valid: int = Field(1_000, ge=10, le=10_000_000)
    """Most validation answers scored for early stopping."""
    evaluations: int = Field(16, ge=1, le=1000)
    """How often per run the validation loss is measured."""
    patience: int = Field(2, ge=1, le=1000)
    """Evaluations without a lower validation loss before training stops."""
    seed: Seed = 0
    """Seed of initial weights, drawn examples and batches."""

    @model_validator(mode="after")
    def _llm_fits_together(self) -> "SftConfig":
        if self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        if self.kind == "bootstrap" and (self.method == "lora" or self.format == "candidates"):
            raise ValueError(
                "kind = bootstrap trains all weights (method = full) and reads format = history"
            )
        self.check_training(self.method, "sft")
        return self

    @property
    def prompt(self) -> TitlePromptConfig:
        """The part that later stages need to ask in the same way."""
        return TitlePromptConfig(**{n: getattr(self, n) for n in TitlePromptConfig.model_fields})
