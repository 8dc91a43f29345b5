"""A row of the result table: what was evaluated, and which row it is compared with."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ResultRow:
    """Whose policy, how decoded, who recommends, and the row it is compared with.

    The fields are columns of `schemas.RESULTS`, where the values of each are listed.
    """

    label: str
    policy: str
    decoding: Literal["none", "greedy", "sampled"]
    recommender: str
    base: str | None = None  # label of the row it is compared with
    strategy: str | None = None
    estimator: str | None = None

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The columns of RESULTS that say which row it is, in their order."""
        return (
            self.label, self.policy, self.decoding, self.recommender, self.strategy, self.estimator
        )  # fmt: skip
