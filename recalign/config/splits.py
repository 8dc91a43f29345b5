"""The windows of time that keep prompts, fits, rewards and tests apart."""

from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import UNLESS_DEFAULT, Config, Seed, held_unless, only_when

COUNTED = held_unless(protocol="per_user")
TIMED = held_unless(protocol="temporal")
BY_USERS = only_when(protocol="kar")
LISTED = held_unless(protocol=("per_user", "temporal"))  # in KAR's protocol lists are others


class SplitsConfig(Config):
    """Per user, in order of time: history | fit | reward | valid | test; in KAR's protocol
    (arXiv 2306.10933) history and one of the four."""

    protocol: Literal["per_user", "temporal", "kar"] = "per_user"
    """Cut each user's own sequence by counts, all users at the same moments in time, or, as KAR
    does, give every user one window, and whole users to fit, reward, validation and test."""
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
    first_items: int = Field(30, ge=1, le=1000, json_schema_extra=BY_USERS)
    """Most items of a user that are history: half of what the user took, at most this many."""
    reward_users: float = Field(0.4, gt=0, lt=1, json_schema_extra=BY_USERS)
    """Share of users whose lists give rewards; the recommender is fitted on users of none of the
    three shares."""
    valid_users: float = Field(0.1, gt=0, lt=1, json_schema_extra=BY_USERS)
    """Share of users for validation."""
    test_users: float = Field(0.1, gt=0, lt=1, json_schema_extra=BY_USERS)
    """Share of users for the test."""
    block: int = Field(4, ge=1, le=100, json_schema_extra=BY_USERS)
    """Items in a row that make a list to re-rank."""
    drawn: int = Field(6, ge=1, le=1000, json_schema_extra=BY_USERS)
    """Items of the catalogue that are drawn into each list."""
    positive_above: float = Field(3.0, json_schema_extra=BY_USERS)
    """An item of a block counts as positive where its rating is above this, or it has none."""
    min_history: int = Field(5, ge=1, le=1000)
    """Users with a shorter history only train the oracle, and are counted."""
    max_users: int = Field(0, ge=0, le=1_000_000_000, json_schema_extra=UNLESS_DEFAULT)
    """Users the LLM is asked about, in all phases the same; drawn, as short and long histories are
    spread. The others only train the oracle; 0: everyone."""
    others_fit: bool = Field(False, json_schema_extra=UNLESS_DEFAULT)
    """The last items of users beyond max_users are a fit window, which the oracle does not see: the
    recommender also learns to read from texts by rule about them, which cost nothing."""
    n_negatives: int = Field(99, ge=1, le=1000, json_schema_extra=LISTED)
    """Length of the fixed lists of items that a user never took, for metrics over lists."""
    popularity_alpha: float = Field(0.75, ge=0, le=2, json_schema_extra=LISTED)
    """Exponent of popularity in lists that are drawn by popularity."""
    seed: Seed = 0
    """Seed of the drawn users and lists."""

    @model_validator(mode="after")
    def _history_is_left(self) -> "SplitsConfig":
        if self.reward_users + self.valid_users + self.test_users >= 1:
            raise ValueError(
                "reward_users + valid_users + test_users must leave users to fit the recommender on"
            )
        if self.others_fit and (self.protocol != "per_user" or not self.max_users):
            raise ValueError("others_fit needs protocol = per_user and a max_users")
        shares = self.fit_share + self.reward_share + self.valid_share + self.test_share
        if shares >= 0.9:
            raise ValueError(
                "fit_share + reward_share + valid_share + test_share must leave 10 % of history"
            )
        return self
