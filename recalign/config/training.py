"""What every training of an LLM needs, and the warm-up of a loaded one."""

from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, UNLESS_DEFAULT, Config, Seed, only_when

ADAPTER = only_when(method="lora")


class WeightsConfig(Config):
    """What every training of an LLM needs: adapter, batches in memory, number format."""

    lora_rank: int = Field(16, ge=1, le=1024, json_schema_extra=ADAPTER)
    """Rank of the adapter."""
    lora_alpha: int = Field(32, ge=1, le=4096, json_schema_extra=ADAPTER)
    """Scale of the adapter; the update is multiplied by alpha / rank."""
    micro_batch_size: int = Field(16, ge=1, le=4096)
    """Rows per forward pass; must divide batch_size."""
    precision: Literal["weights", "bfloat16"] = "weights"
    """Number format of matrix products: that of the weights, or bfloat16 (faster, coarser)."""
    max_length: int = Field(512, ge=16, le=131_072)
    """Longest prompt plus completion, in tokens; longer rows are counted and left out."""


class WarmUpConfig(WeightsConfig):
    """A loaded LLM is first trained on texts that a template writes about the history windows."""

    heading = "Warm-up on texts by rule"
    first = ("n_prompts", "text", "learning_rate", "epochs")

    n_prompts: int = Field(0, ge=0, le=10_000_000)
    """Prompts to train on, from the history windows; 0: no warm-up."""
    text: str = Field("likes", json_schema_extra=NOT_IDENTITY)
    """Template of the texts: likes (what is liked most), likes_next (and the item taken next, from
    the history window too), or a file's path."""
    n_liked: int = Field(3, ge=1, le=20)
    """Most values of an attribute that a text may name, of at most four attributes."""
    longest_text: int = Field(0, ge=0, le=8192)
    """Longest text to train on, in tokens; 0: what reasonings may write. Others are left out."""
    min_words: int = Field(3, ge=1, le=1000, json_schema_extra=UNLESS_DEFAULT)
    """Fewest words of a text to train on; 3: what reasonings.min_words says. Others are dropped."""
    template: str = Field("", json_schema_extra=NOT_IDENTITY)
    """Prompt template; empty: that of reasonings."""
    history_items: int = Field(0, ge=0, le=1000)
    """Most recent items shown in a prompt; 0: as many as reasonings show."""
    method: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter, which is merged into the weights (and rounded, in bfloat16), or all
    weights."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Peak learning rate of AdamW, warmed up and decayed linearly."""
    epochs: int = Field(1, ge=1, le=1000)
    """Most passes over the prompts."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Prompts per optimiser step (of which micro_batch_size are in memory at once)."""
    held_out: float = Field(0.05, gt=0, lt=0.9)
    """Share of users who are held out for early stopping."""
    evaluations: int = Field(4, ge=1, le=1000)
    """How often per run the held-out texts are scored."""
    patience: int = Field(2, ge=1, le=1000)
    """Evaluations without a lower held-out loss before training stops."""
    seed: Seed = 0
    """Seed of the prompts, of the adapter's weights and of the order of rows."""

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self) -> "WarmUpConfig":
        if self.n_prompts == 1:
            raise ValueError(
                "n_prompts: one prompt is trained on and one held out; ask for 2 or more"
            )
        if self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        return self
