"""Rounds, evaluation and report."""

from typing import Annotated, Literal

from pydantic import Field

from recalign.config.base import NOT_IDENTITY, UNLESS_DEFAULT, Config, Seed


class RoundsConfig(Config):
    """How often generation, reward and alignment are repeated."""

    n: int = Field(2, ge=1, le=20)
    """Most rounds; raising it later computes only the new ones."""
    pairs: Literal["new", "cumulative"] = "new"
    """Align on the round's own pairs, or on those of all rounds so far."""
    inner_rounds: int = Field(1, ge=1, le=100)
    """Parts into which a round deals out its users: each is sampled by the policy that learned from
    the parts before. As many texts are written; the more parts, the nearer to on-policy."""
    patience: int = Field(1, ge=1, le=20)
    """Rounds without a better validation score (NDCG of sampled texts over the whole catalogue; in
    KAR's protocol, of the lists) before the run stops repeating."""


class EvaluationConfig(Config):
    """Metrics, candidate lists and intervals."""

    cutoffs: list[Annotated[int, Field(ge=1, le=1000)]] = Field([1, 5, 10, 20], min_length=1)
    """Cut-offs k of NDCG, HR, MAP and MRR."""
    lists: Literal["uniform", "popularity"] = "uniform"
    """How the fixed candidate lists are drawn."""
    list_targets: int = Field(1, ge=1, le=100)
    """Held-out items in each candidate list; not read in KAR's protocol (see splits.block)."""
    list_length: int = Field(20, ge=2, le=1000)
    """Length of a candidate list; not read in KAR's protocol (see splits.drawn)."""
    n_resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples of the users for the 95 % intervals."""
    seed: Seed = 0
    """Seed of the resamples."""

    mixed: list[Annotated[float, Field(gt=0, le=1)]] = Field([], json_schema_extra=UNLESS_DEFAULT)
    """Shares of another user's sentences in the base policy's test texts, a row of the table each:
    how much worse the ranking gets as texts get worse."""
    independent: bool = Field(True, json_schema_extra=NOT_IDENTITY)  # its inputs tell
    """Let a recommender of the other architecture, which gave no reward, judge the test texts;
    where PRM gives the rewards, an adapter beside GRU4Rec."""

    def for_phase(self, phase: Literal["valid", "test"]) -> "EvaluationPhase":
        """The settings for judging on validation, which compares rounds alone, or test targets."""
        mixed = self.mixed if phase == "test" else []
        return EvaluationPhase(**dict(self) | {"mixed": mixed}, phase=phase)


class EvaluationPhase(EvaluationConfig):
    """Evaluation on the targets of one phase."""

    phase: Literal["valid", "test"]
    """Whose targets are ranked; the test is read once, for the round that validation chose."""


class ReportConfig(Config):
    """The HTML page."""

    n_examples: int = Field(5, ge=0, le=100)
    """Users shown with history, base and aligned reasoning side by side."""

    def ended_by(self, reason: str) -> "ReportConfig":
        """The page of a run whose rounds ended by this; empty: by their settings."""
        return EndedReportConfig(**dict(self), reason=reason) if reason else self


class EndedReportConfig(ReportConfig):
    """The HTML page of a run that had fewer rounds than it was to have."""

    reason: str
    """Why, as a clause."""
