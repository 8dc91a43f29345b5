"""A series of rounds: the pointer file that tells which rounds are good, replaced as a whole."""

from datetime import datetime

from pydantic import BaseModel, Field

from recalign.artifacts.journals import Journal, Journals
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.store import Store
from recalign.errors import UserError


class SeriesRound(BaseModel, extra="forbid"):
    """One good round; round 0 is the policy before any alignment."""

    number: int
    validation: float  # what rounds are compared by, on the validation window
    alignment: Reference | None = None  # the aligned policy; None in round 0
    run: str  # id of the flow run that computed it
    started: datetime
    finished: datetime


class Generation(BaseModel, extra="forbid"):
    """The rounds that one source and one set of settings have led to.

    `stages` holds every stage up to the last round, by label; none once a later generation began.
    """

    began: datetime
    reason: str  # why it began: what differs from the generation before
    rounds: list[SeriesRound]
    stages: dict[str, Reference]
    ended: str = ""  # why there is no further round; empty while there is one

    @property
    def best(self) -> SeriesRound:
        """The round with the best validation; round 0 only where it is alone."""
        return max(self.rounds[1:] or self.rounds, key=lambda made: made.validation)


class Series(Journal):
    """The content of a pointer file: generations, oldest first."""

    source: str = ""
    """The data source it was built on; empty in files of earlier versions."""
    generations: list[Generation] = Field(default_factory=list)

    @property
    def latest(self) -> Generation | None:
        """The generation that the next round belongs to, unless its source or settings changed."""
        return self.generations[-1] if self.generations else None


SERIES = Journals("series", ".series", Series)


def continued_with(series: Series, source: str, allowed: str) -> Series:
    """The series on this data source; UserError for another than before, unless it is named."""
    if series.source not in ("", source) and allowed != source:
        raise UserError(
            f"series {series.name} was built on {series.source}, this run uses {source}: name "
            f"another series, or set new_source to {source} to continue with that"
        )
    return series.model_copy(update={"source": source})


def why_new(store: Store, old: dict[str, Reference], new: dict[str, Reference]) -> str:
    """The settings, versions and files in which the stages of two generations differ.

    A stage that differs only in its inputs is a consequence and left out.
    """
    found: dict[str, None] = {}  # each once, in order of the stages
    for label, reference in new.items():
        before, now = _manifest(store, old.get(label)), _manifest(store, reference)
        if before and now:
            for cause in before.identity.differences(now.identity):
                if not cause.startswith("inputs."):
                    found[f"{now.stage}.{cause.removeprefix('config.')}"] = None
    return "; ".join(found) or "the settings of later rounds changed"


def _manifest(store: Store, reference: Reference | None) -> Manifest | None:
    return store.manifest(reference.stage, reference.fingerprint) if reference else None
