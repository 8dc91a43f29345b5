"""The refreshes of a nightly table of recommendations: a file that tells of each, in order."""

from datetime import datetime

from pydantic import BaseModel, Field

from recalign.artifacts.journals import Journal, Journals
from recalign.artifacts.manifest import Reference


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

    refreshes: list[Refresh] = Field(default_factory=list)

    @property
    def last(self) -> Refresh | None:
        """The one that is in use."""
        return self.refreshes[-1] if self.refreshes else None


REFRESHES = Journals("refresh", ".refreshes", Refreshes)
