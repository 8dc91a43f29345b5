"""Which items RosePO rejects in favour of the one that was taken."""

import math
from typing import Literal, cast

from pydantic import Field, model_validator

from recalign.config.base import Config, Seed, only_when
from recalign.config.sft import TitlePromptConfig

Strategy = Literal["self_hard", "self_softmax", "semantic", "popularity", "random"]
ASKS_SFT: tuple[Strategy, ...] = ("self_hard", "self_softmax")
"""Strategies that reject by the SFT model's own log-probabilities."""
ASKED = only_when(strategy=(*ASKS_SFT, "mix"))
SOFTENED = only_when(strategy=("self_softmax", "mix"))
POPULAR = only_when(strategy=("popularity", "mix"))
NEAR = only_when(strategy=("semantic", "mix"))


class MixConfig(Config):
    """Weights of the strategies in the draw for each rejected item; they need not add up to 1."""

    self_hard: float = Field(1.0, ge=0, le=100)
    """Weight of what the SFT model wrongly ranks above the truth."""
    self_softmax: float = Field(0.0, ge=0, le=100)
    """Weight of items drawn by the SFT model's own probabilities."""
    semantic: float = Field(1.0, ge=0, le=100)
    """Weight of text-embedding neighbours."""
    popularity: float = Field(1.0, ge=0, le=100)
    """Weight of items drawn by popularity."""
    random: float = Field(0.0, ge=0, le=100)
    """Weight of items drawn uniformly."""

    def weights(self) -> dict[Strategy, float]:
        """The weight of each strategy."""
        return cast(dict[Strategy, float], dict(self))

    @model_validator(mode="after")
    def _something_is_left(self) -> "MixConfig":
        if not any(dict(self).values()):
            raise ValueError("at least one weight must be above 0")
        return self


class RejectionsConfig(Config):
    """Which items are rejected in favour of the one that was taken."""

    strategy: Literal[Strategy, "mix"] = "self_hard"
    """Where rejected items come from; random is the ablation."""
    mix: MixConfig = Field(MixConfig(), json_schema_extra=only_when(strategy="mix"))
    """Which strategy gives an item is drawn by these weights. A pair whose draw names self_hard is
    left out where the SFT model ranks nothing above the truth: of the pairs that are kept,
    self_hard has less than its share."""
    n_rejected: int = Field(1, ge=1, le=64)
    """Rejected items per chosen one (K)."""
    n_pairs: int = Field(6_000, ge=10, le=100_000_000)
    """Most chosen items; users and positions are drawn, the same for every strategy."""
    temperature: float = Field(1.0, gt=0, le=100, json_schema_extra=SOFTENED)
    """Flattens the SFT model's probabilities."""
    popularity_alpha: float = Field(1.0, ge=0, le=2, json_schema_extra=POPULAR)
    """Exponent of train popularity."""
    semantic_to: Literal["target", "history"] = Field("history", json_schema_extra=NEAR)
    """Neighbours of the mean of the history shown, as in the paper, or of the item taken."""
    neighbours: int = Field(20, ge=1, le=10_000, json_schema_extra=NEAR)
    """Nearest items to draw among."""
    pool: int = Field(20, ge=0, le=10_000_000, json_schema_extra=ASKED)
    """Items drawn per pair for the SFT model to score; 0: the whole catalogue. Not read where
    sft.format is candidates: it scores the titles shown."""
    encoder: str = "minilm"
    """Sentence encoder of the item texts (semantic, and the report on all strategies)."""
    seed: Seed = 0
    """Seed of everything drawn, one stream per (user, position)."""

    @model_validator(mode="after")
    def _pool_holds_the_rejected(self) -> "RejectionsConfig":
        if self.needs_sft and 0 < self.pool <= self.n_rejected:
            raise ValueError("pool must be 0 (the whole catalogue) or above n_rejected")
        return self

    @model_validator(mode="after")
    def _neighbours_hold_the_rejected(self) -> "RejectionsConfig":
        asked = self.n_rejected * self._semantic_share
        if asked > self.neighbours:
            raise ValueError(
                f"neighbours = {self.neighbours} must be at least {math.ceil(asked)}: so many"
                " rejected items of a pair are drawn among them (n_rejected, in a mix times the"
                " share of semantic)"
            )
        return self

    @property
    def _semantic_share(self) -> float:
        """The share of rejected items that are neighbours."""
        if self.strategy != "mix":
            return float(self.strategy == "semantic")
        return self.mix.semantic / sum(self.mix.weights().values())

    @property
    def needs_sft(self) -> bool:
        """Whether the SFT model has to score items."""
        if self.strategy == "mix":
            return any(self.mix.weights()[strategy] for strategy in ASKS_SFT)
        return self.strategy in ASKS_SFT

    def asked_as(self, prompt: TitlePromptConfig) -> "RejectionsStage":
        """The settings of the stage: also how the LLM will be asked about these pairs."""
        settings, usual = dict(self), type(self).model_fields["pool"].default
        if prompt.format == "candidates" and usual > self.n_rejected:  # else no valid setting
            settings["pool"] = usual
        return RejectionsStage(**settings, prompt=prompt)


class RejectionsStage(RejectionsConfig):
    """Rejected items, with the prompts of their pairs."""

    prompt: TitlePromptConfig
    """How the LLM is asked."""
