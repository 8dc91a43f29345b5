"""Journals with a name: small files beside the artifacts, each replaced as a whole."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError

from recalign.artifacts.claims import Lock
from recalign.artifacts.store import Store
from recalign.errors import UserError

PATTERN = r"^[a-z0-9][a-z0-9-]{0,59}$"  # a file name, and part of the key of a Prefect artifact
Name = Annotated[str, Field(pattern=PATTERN)]


class Journal(BaseModel, extra="forbid"):
    """The content of such a file."""

    name: Name


Told = TypeVar("Told", bound=Journal)


@dataclass(frozen=True)
class Journals(Generic[Told]):
    """All journals of one kind: those of series, or of refreshes.

    UserError for a name that is not allowed, and for a file that cannot be read: beginning anew in
    silence would lose what it tells.
    """

    what: str
    """What one is called, in messages and in the name of its lock."""
    folder: str
    kind: type[Told]

    def lock(self, store: Store, name: str) -> Lock:
        """An exclusive lock: whoever adds to the journal holds it."""
        return store.lock(self.what, self._checked(name))

    def read(self, store: Store, name: str) -> Told:
        """The journal of this name, an empty one if there is none yet."""
        note = self._note(name)
        text = store.read_note(note)
        if text is None:
            return self.kind(name=name)
        damaged = UserError(f"{note} is damaged: restore it, or delete it to begin anew")
        try:
            told = self.kind.model_validate_json(text)
        except ValidationError as error:
            if {one["type"] for one in error.errors()} == {"extra_forbidden"}:
                raise UserError(f"{note} was written by a newer version of recalign") from error
            raise damaged from error
        if told.name != name:
            raise damaged
        return told

    def write(self, store: Store, told: Told) -> None:
        """Replace the file: whoever reads it sees the old content or the new."""
        store.write_note(self._note(told.name), told.model_dump_json(indent=1))

    def all(self, store: Store) -> Iterator[Told]:
        """Every one at this root, by name."""
        for note in store.notes(self.folder):
            yield self.read(store, note.removeprefix(f"{self.folder}/").removesuffix(".json"))

    def _note(self, name: str) -> str:
        return f"{self.folder}/{self._checked(name)}.json"

    def _checked(self, name: str) -> str:
        if not re.fullmatch(PATTERN, name):
            raise UserError(f"{self.what} {name!r}: a name has up to 60 of a-z, 0-9 and -")
        return name
