"""What a user takes home: recommendations for everyone, from the newest history of each."""

import os
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from recalign.config.base import NOT_IDENTITY, Config, Seed, only_when


class ServingConfig(Config):
    """How many items each user is recommended, and from which."""

    k: int = Field(10, ge=1, le=1000)
    """Items per user, best first."""
    exclude_seen: bool = True
    """Leave out what the user has already taken."""


class TitleServingConfig(ServingConfig):
    """The same, by an LLM that names the next item (RosePO)."""

    candidates: int = Field(0, ge=0, le=10_000)
    """Best items of SASRec that the LLM ranks anew; 0: it ranks the whole catalogue itself."""
    beam: int = Field(0, ge=0, le=1000, json_schema_extra=only_when(candidates=0))
    """Width of the beam search over the catalogue's titles; 0: score every title."""
    likelihood: Literal["sum", "mean"] = "sum"
    """Log-probability of a title over all its tokens, or per token."""


class RecommendConfig(ServingConfig):
    """Recommendations of a finished run: for whom, from what, and where they are written."""

    heading = "What is recommended"
    first = ("run", "series", "users", "interactions", "output", "k")

    run: str = ""
    """Report of the run, as `recalign ls` names it; empty: the newest report."""
    series: str = ""
    """Series of scheduled rounds whose best round recommends, in place of a run."""
    users: str = ""
    """File of user ids (one per line, or a table with user_id); empty: every user."""
    interactions: str = ""
    """File of newer interactions, with the columns of the run's own files; empty: none."""
    candidates: int = Field(0, ge=0, le=10_000)
    """RosePO alone: best items of SASRec that the LLM ranks anew; 0: the whole catalogue."""
    template: str = ""
    """Path of the run's own prompt template; empty: the packaged one, or a file of its name in the
    working folder (RosePO: first where it was, at last the copy that the run kept)."""
    output: str = Field("recs.parquet", json_schema_extra=NOT_IDENTITY, min_length=1)
    """File that is written, .parquet or .csv; the old one stays until the new one is whole."""

    @field_validator("users", "interactions", "template", "output")
    @classmethod
    def _at_home(cls, path: str) -> str:
        """A form, and many a shell, leaves a ~ as it is."""
        return os.path.expanduser(path)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.run and self.series:
            raise ValueError("name a run or a series, not both")
        return self

    @property
    def given(self) -> dict[str, str]:
        """Files that are read, by setting; a setting that is empty names none."""
        named = ("users", "interactions", "template")
        return {name: getattr(self, name) for name in named if getattr(self, name)}

    @property
    def serving(self) -> ServingConfig:
        """What the stage of that name is told."""
        return ServingConfig(k=self.k, exclude_seen=self.exclude_seen)


class DriftConfig(Config):
    """How the last refresh is compared with what was taken since."""

    k: int = Field(10, ge=1, le=1000)
    """Cut-off of NDCG and HR."""
    n_resamples: int = Field(2000, ge=100, le=100_000)
    """Bootstrap resamples of the users for the 95 % interval."""
    seed: Seed = 0
    """Seed of the resamples."""
