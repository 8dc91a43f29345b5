"""The size of an embedded LLM."""

from typing import Self

from pydantic import Field, model_validator

from recalign.config.base import Config


class SmallLlamaConfig(Config):
    """A small Llama that is trained from scratch (no download)."""

    heading = "The embedded LLM"

    hidden: int = Field(128, ge=16, le=2048)
    """Width of the model."""
    layers: int = Field(3, ge=1, le=32)
    """Number of transformer layers."""
    heads: int = Field(4, ge=1, le=32)
    """Attention heads per layer; hidden must be a multiple of twice as many."""

    @model_validator(mode="after")
    def _heads_have_even_widths(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"hidden {self.hidden} must be a multiple of 2 x heads, {2 * self.heads}"
            )
        return self
