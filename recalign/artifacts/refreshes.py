"""The refreshes of a nightly table of recommendations: a file that tells of each, in order."""

from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel, ValidationError

from recalign.artifacts.claims import Lock
from recalign.artifacts.manifest import Reference
from recalign.artifacts.series import SeriesName, checked_name
from recalign.artifacts.store import Store
from recalign.errors import UserError

FOLDER = ".refreshes"


class Drift(BaseModel, extra="forbid"):
    """How well the refresh before foresaw what was taken since."""

    artifact: Reference
    k: int = 10  # cut-off: of shorter lists, their length
    ndcg: float  # NDCG@k, mean over the users
    low: float  # its 95 % interval
    high: float
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
    run: str  # id of the flow run that made it
    started: datetime
    finished: datetime


class Refreshes(BaseModel, extra="forbid"):
    """The content of the file."""

    name: SeriesName
    refreshes: list[Refresh] = []

    @property
    def last(self) -> Refresh | None:
        """The one that is in use."""
        return self.refreshes[-1] if self.refreshes else None


def refreshes_lock(store: Store, name: str) -> Lock:
    """Whoever makes the next refresh holds it."""
    return store.lock("refresh", checked_name("refresh", name))


def read_refreshes(store: Store, name: str) -> Refreshes:
    """Those of this name, none yet if there is no file; UserError where it cannot be read."""
    note = f"{FOLDER}/{checked_name('refresh', name)}.json"
    text = store.read_note(note)
    if text is None:
        return Refreshes(name=name)
    try:
        return Refreshes.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{note} is damaged: restore it, or delete it to begin anew") from error


def write_refreshes(store: Store, refreshes: Refreshes) -> None:
    """Replace the file: whoever reads it sees the old content or the new."""
    store.write_note(f"{FOLDER}/{refreshes.name}.json", refreshes.model_dump_json(indent=1))


def all_refreshes(store: Store) -> Iterator[Refreshes]:
    """Every history of refreshes at this root, by name."""
    for note in store.notes(FOLDER):
        yield read_refreshes(store, note.removeprefix(f"{FOLDER}/").removesuffix(".json"))
