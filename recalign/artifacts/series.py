"""A series of rounds: the pointer file that tells which rounds are good, replaced as a whole."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from recalign.artifacts.claims import Lock
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.store import Store
from recalign.errors import UserError

FOLDER = ".series"
NAME = r"^[a-z0-9][a-z0-9-]{0,59}$"  # a file name, and part of the key of a Prefect artifact
SeriesName = Annotated[str, Field(pattern=NAME)]


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


class Series(BaseModel, extra="forbid"):
    """The content of a pointer file: generations, oldest first."""

    name: SeriesName
    source: str = ""
    """The data source it stands on; empty in files of earlier versions."""
    generations: list[Generation] = []

    @property
    def latest(self) -> Generation | None:
        """The generation that the next round belongs to, unless its source or settings changed."""
        return self.generations[-1] if self.generations else None


def continued_with(series: Series, source: str, allowed: str) -> Series:
    """The series on this data source; UserError for another than before, unless it is named."""
    if series.source not in ("", source) and allowed != source:
        raise UserError(
            f"series {series.name} was built on {series.source}, this run uses {source}: name "
            f"another series, or set new_source to {source} to continue with that"
        )
    return series.model_copy(update={"source": source})


def series_lock(store: Store, name: str) -> Lock:
    """An exclusive lock on the series: whoever advances it holds it."""
    _note(name)
    return store.lock("series", name)


def read_series(store: Store, name: str) -> Series:
    """The series of this name, without generations if there is none yet.

    UserError for a name that is not allowed, and for a pointer file that cannot be read: beginning
    anew in silence would lose its history.
    """
    note = _note(name)
    text = store.read_note(note)
    if text is None:
        return Series(name=name)
    damaged = UserError(f"{note} is damaged: restore it, or delete it to begin anew")
    try:
        series = Series.model_validate_json(text)
    except ValidationError as error:
        raise damaged from error
    if series.name != name:
        raise damaged
    return series


def write_series(store: Store, series: Series) -> None:
    """Replace the pointer file: whoever reads it sees the old content or the new."""
    store.write_note(_note(series.name), series.model_dump_json(indent=1))


def all_series(store: Store) -> Iterator[Series]:
    """Every series at this root, by name."""
    for note in store.notes(FOLDER):
        yield read_series(store, note.removeprefix(f"{FOLDER}/").removesuffix(".json"))


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


def checked_name(what: str, name: str) -> str:
    """The name, which becomes that of a file; UserError for one that is not allowed."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"{what} {name!r}: a name has up to 60 of a-z, 0-9 and -")
    return name


def _note(name: str) -> str:
    return f"{FOLDER}/{checked_name('series', name)}.json"
