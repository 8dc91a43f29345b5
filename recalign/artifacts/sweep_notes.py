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
    """Name these reports beside those that the note names already: a killed run's are among them.

    A note that fails costs no result.
    """
    named = [report.fingerprint for report in reports]
    try:
        all_named = dict.fromkeys([*_reports(store, _note(name)), *named])
        store.write_note(_note(name), json.dumps(list(all_named)))
    except (OSError, UserError, ValueError) as error:
        log.warning("%s: collect no garbage until the sweep is done: %s", _note(name), error)


def forget_sweep(store: Store, name: str) -> None:
    """The sweep has ended: what it made stays as everything else does."""
    try:
        store.delete_note(_note(name))
    except (OSError, UserError) as error:
        log.warning("%s stays, delete it by hand: %s", _note(name), error)


def reports_of_sweeps(store: Store) -> dict[str, list[str]]:
    """Fingerprints of the reports by the note that names them."""
    return {name: _reports(store, name) for name in store.notes(FOLDER)}


def _reports(store: Store, note: str) -> list[str]:
    named: list[str] = json.loads(store.read_note(note) or "[]")
    return named


def _note(name: str) -> str:
    return f"{FOLDER}/{name}.json"
