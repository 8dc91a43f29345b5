"""What a user takes home: recommendations for everyone, from the newest history of each."""

from typing import Self

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, Config


class ServingConfig(Config):
    """How many items each user is recommended, and from which."""

    k: int = Field(10, ge=1, le=1000)
    """Items per user, best first."""
    exclude_seen: bool = True
    """Leave out what the user has already taken."""


class RecommendConfig(ServingConfig):
    """Recommendations of a finished run: for whom, from what, and where they are written."""

    run: str = ""
    """Report of the run, as `recalign ls` names it; empty: the newest report."""
    series: str = ""
    """Series of scheduled rounds whose best round recommends, in place of a run."""
    users: str = ""
    """File of user ids (one per line, or a table with user_id); empty: every user."""
    interactions: str = ""
    """File of newer interactions, with the columns of the run's own files; empty: none."""
    template: str = ""
    """The run's own prompt template, if it had one that is not packaged; empty: by its name."""
    output: str = Field("recs.parquet", json_schema_extra=NOT_IDENTITY, min_length=1)
    """File that is written, .parquet or .csv; the old one stays until the new one is whole."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.run and self.series:
            raise ValueError("name a run or a series, not both")
        return self

    @property
    def serving(self) -> ServingConfig:
        """What the stage of that name is told."""
        return ServingConfig(k=self.k, exclude_seen=self.exclude_seen)
