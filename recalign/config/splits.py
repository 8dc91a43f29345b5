"""The windows of time that keep prompts, fits, rewards and tests apart."""

from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import UNLESS_DEFAULT, Config, Seed, held_unless

COUNTED = held_unless(protocol="per_user")
TIMED = held_unless(protocol="temporal")


class SplitsConfig(Config):
    """Per user, in order of time: history | fit | reward | valid | test."""

    protocol: Literal["per_user", "temporal"] = "per_user"
    """Cut each user's own sequence by counts, or all users at the same moments in time."""
    fit: int = Field(6, ge=0, le=1000, json_schema_extra=COUNTED)
    """Items per user the recommender is fitted on."""
    reward: int = Field(8, ge=0, le=1000, json_schema_extra=COUNTED)
    """Items per user the reward is measured on."""
    valid: int = Field(4, ge=1, le=1000, json_schema_extra=COUNTED)
    """Items per user for validation."""
    test: int = Field(6, ge=1, le=1000, json_schema_extra=COUNTED)
    """Items per user for the test."""
    fit_share: float = Field(0.1, ge=0, lt=1, json_schema_extra=TIMED)
    """Share of all interactions in the fit window."""
    reward_share: float = Field(0.1, ge=0, lt=1, json_schema_extra=TIMED)
    """Share of all interactions in the reward window."""
    valid_share: float = Field(0.05, gt=0, lt=1, json_schema_extra=TIMED)
    """Share of all interactions in the validation window."""
    test_share: float = Field(0.05, gt=0, lt=1, json_schema_extra=TIMED)
    """Share of all interactions in the test window."""
    min_history: int = Field(5, ge=1, le=1000)
    """Users with a shorter history only train the oracle, and are counted."""
    max_users: int = Field(0, ge=0, le=1_000_000_000, json_schema_extra=UNLESS_DEFAULT)
    """Users the LLM is asked about, in all phases the same; drawn, as short and long histories are
    spread. The others only train the oracle; 0: everyone."""
    n_negatives: int = Field(99, ge=1, le=1000)
    """Length of the fixed lists of items that a user never took, for metrics over lists."""
    popularity_alpha: float = Field(0.75, ge=0, le=2)
    """Exponent of popularity in lists that are drawn by popularity."""
    seed: Seed = 0
    """Seed of the drawn users and lists."""

    @model_validator(mode="after")
    def _history_is_left(self) -> "SplitsConfig":
        shares = self.fit_share + self.reward_share + self.valid_share + self.test_share
        if shares >= 0.9:
            raise ValueError(
                "fit_share + reward_share + valid_share + test_share must leave 10 % of history"
            )
        return self
