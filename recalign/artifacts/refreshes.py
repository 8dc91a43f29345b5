"""The refreshes of a nightly table of recommendations: a file that tells of each, in order."""

from datetime import datetime

from pydantic import BaseModel, Field

from recalign.artifacts.journals import Journal, Journals
from recalign.artifacts.manifest import Reference
from recalign.errors import UserError


class Drift(BaseModel, extra="forbid"):
    """How well the refresh before foresaw what was taken since."""

    artifact: Reference
    k: int = 10  # cut-off: of shorter lists, their length
    ndcg: float  # NDCG@k, mean over the users
    low: float | None  # its 95 % interval; None: too few users for one
    high: float | None
    users: int  # who were recommended something and have taken something new since


class Refresh(BaseModel, extra="forbid"):
    """One table of recommendations that was handed out."""

    serving: Reference
    histories: Reference
    policy: Reference
    output: str
    users: int
    users_listed: int
    texts_written: int
    texts_kept: int
    drift: Drift | None = None  # None: the first, or nobody has taken anything since
    report: Reference | None = None  # of the run that was asked for by name, for the next refresh
    run: str  # id of the flow run that made it
    started: datetime
    finished: datetime


class Refreshes(Journal):
    """The content of the file: refreshes, oldest first."""

    source: str = ""
    """The data set that all of them recommend from; empty in files of earlier versions."""
    refreshes: list[Refresh] = Field(default_factory=list)

    @property
    def last(self) -> Refresh | None:
        """The one that is in use."""
        return self.refreshes[-1] if self.refreshes else None


REFRESHES = Journals("refresh", ".refreshes", Refreshes)


def refreshed_from(refreshes: Refreshes, source: str, by: str) -> Refreshes:
    """The history with a refresh from this data set; UserError for another than before.

    Another data set has other users and items, even where ids coincide: its lists would replace
    the table, and drift would compare what has nothing to do with each other. `by`: the run or
    series that recommends; an empty source is not known.
    """
    if source and refreshes.source not in ("", source):
        raise UserError(
            f"refresh {refreshes.name} recommends from {refreshes.source}, but {by} is of "
            f"{source}: name a run or series of {refreshes.source}, or another history"
        )
    return refreshes.model_copy(update={"source": source or refreshes.source})
