"""The recommender that reads reasonings, the reward it gives, and the pairs made from it."""

from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import AT_DEFAULT, NOT_IDENTITY, UNLESS_DEFAULT, Config, Seed, only_when


class RecommenderConfig(Config):
    """Frozen SASRec plus an adapter over the encoded reasoning (after KAR), or KAR's re-ranker."""

    kind: Literal["sasrec", "prm"] = Field("sasrec", json_schema_extra=UNLESS_DEFAULT)
    """What reads the reasoning: an adapter beside the frozen sequence model, which ranks the whole
    catalogue; or PRM, which re-ranks lists and needs splits.protocol = kar."""
    encoder: str = "minilm"
    """Sentence encoder: 'minilm' (packaged), or a folder or hub id of sentence-transformers, the
    latter best with its commit (owner/name@commit)."""
    adapter: Literal["gated", "experts"] = "gated"
    """A gated two-layer adapter, or KAR's mixture of small experts."""
    hidden: int = Field(64, ge=4, le=4096)
    """Width of the adapter, or of PRM's layers."""
    layers: int = Field(1, ge=1, le=32, json_schema_extra=only_when(kind="prm"))
    """Transformer layers of PRM."""
    gate: float = Field(0.1, ge=0, le=10)
    """Initial weight of the similarity of text and item in the score; 0: none (KAR, PRM alone)."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate inside the adapter, or PRM."""
    learning_rate: float = Field(3e-3, gt=0, le=1)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0, le=10)
    """Weight decay of AdamW."""
    epochs: int = Field(8, ge=1, le=1000)
    """Most passes over the fit examples."""
    batch_size: int = Field(256, ge=1, le=65536)
    """Fit examples per optimiser step."""
    others_text: str = Field("likes", json_schema_extra=NOT_IDENTITY)
    """Template of the texts by rule about the users of splits.others_fit: likes, or a path."""
    held_out: float = Field(0.2, gt=0, lt=0.9)
    """Share of users held out for early stopping and for the signal guard."""
    guard: bool = Field(True, json_schema_extra=AT_DEFAULT)
    """Stop before a reward is paid for unless real reasonings beat those of other users."""
    seed: Seed = 0
    """Seed of initial weights, batches, dropout and shuffles."""

    def independent(self) -> "RecommenderConfig":
        """What reads texts for a judge that gave no reward: an adapter, also where PRM gives them.

        PRM takes from its sequence model the order of a list alone: over another one it would be
        nearly the same judge.
        """
        if self.kind == "sasrec":
            return self
        usual = type(self).model_fields["gate"].default
        return self.model_copy(update={"kind": "sasrec", "gate": self.gate or usual})

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "RecommenderConfig":
        if self.kind == "prm" and self.hidden % 4:
            raise ValueError("hidden must be a multiple of 4, PRM's attention heads")
        if self.kind == "sasrec" and not self.gate:
            raise ValueError("gate must be above 0, or the text is never read")
        return self


class RewardsConfig(Config):
    """What makes one reasoning better than another."""

    reward: Literal["ndcg_full", "ndcg_at_k", "map_at_k", "hr_at_k", "log_prob"] = "log_prob"
    """NDCG over the whole ranking, NDCG, average precision or hit rate at k, or the mean
    log-probability of the targets (nats).

    The log-probability is the default because it never ties and, at the default anchor and all
    else equal, validation was higher with it on each of five seeds (docs/results.md); the paper's
    own reward is NDCG.
    """
    k: int = Field(
        10, ge=1, le=1000, json_schema_extra=only_when(reward=("ndcg_at_k", "map_at_k", "hr_at_k"))
    )
    """Cut-off of the ranking."""


SEVERAL = ("all_above_margin", "top_bottom_k")
"""Values of `PairsConfig.select` that make several pairs of one prompt."""


class PairsConfig(Config):
    """Which of a user's samples are compared."""

    select: Literal["best_worst", "best_random", "all_above_margin", "top_bottom_k"] = Field(
        "best_worst", json_schema_extra=UNLESS_DEFAULT
    )
    """Best against worst, best against any worse one, every two whose rewards differ enough, or
    best against worst, second best against second worst, and so on."""
    k: int = Field(2, ge=1, le=128, json_schema_extra=only_when(select="top_bottom_k"))
    """Pairs per user."""
    seed: Seed = Field(0, json_schema_extra=only_when(select="best_random"))
    """Seed of who is rejected, one stream per user."""
    repeats: bool = Field(False, json_schema_extra=UNLESS_DEFAULT)
    """Count equal texts of a user as several samples, as GRPO's mean does; else they are one."""
    min_margin: float = Field(0.0, ge=0)
    """Smallest difference of rewards that makes a pair, in the reward's unit (nats for log_prob).
    A tie never makes one."""
    max_pairs: int = Field(0, ge=0, le=1_000_000_000)
    """Keep only the pairs with the largest margins; 0: all."""
