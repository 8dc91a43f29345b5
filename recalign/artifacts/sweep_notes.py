"""The runs of a sweep that has not ended: garbage collection leaves their reports alone.

A sweep's leaderboard stands on them once it is there. Until then a note at the root names them.
"""

import json
import logging
from collections.abc import Iterable

from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Store
from recalign.errors import UserError

log = logging.getLogger(__name__)

FOLDER = ".sweeps"


def note_sweep(store: Store, name: str, reports: Iterable[Reference]) -> None:
    """Name the reports that this sweep has made so far; a note that fails costs no result."""
    named = json.dumps([report.fingerprint for report in reports])
    try:
        store.write_note(_note(name), named)
    except (OSError, UserError) as error:
        log.warning("%s: collect no garbage until the sweep is done: %s", _note(name), error)


def forget_sweep(store: Store, name: str) -> None:
    """The sweep has ended: what it made stays as everything else does."""
    try:
        store.delete_note(_note(name))
    except (OSError, UserError) as error:
        log.warning("%s stays, delete it by hand: %s", _note(name), error)


def reports_of_sweeps(store: Store) -> dict[str, list[str]]:
    """Fingerprints of the reports by the note that names them."""
    return {name: json.loads(store.read_note(name) or "[]") for name in store.notes(FOLDER)}


def _note(name: str) -> str:
    return f"{FOLDER}/{name}.json"
