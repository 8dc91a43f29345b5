"""The runs of a sweep that has not ended: garbage collection leaves their reports alone.

A sweep's leaderboard stands on them once it is there. Until then a note at the root names them.
"""

import json
from collections.abc import Iterable

from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Store

FOLDER = ".sweeps"


def note_sweep(store: Store, leaderboard: Reference, reports: Iterable[Reference]) -> None:
    """Name the reports that the sweep of this leaderboard has made so far."""
    named = json.dumps([report.fingerprint for report in reports])
    store.write_note(_note(leaderboard), named)


def forget_sweep(store: Store, leaderboard: Reference) -> None:
    """The sweep has ended: what it made stays as everything else does."""
    store.delete_note(_note(leaderboard))


def reports_of_sweeps(store: Store) -> dict[str, list[str]]:
    """Fingerprints of the reports by the note that names them."""
    return {name: json.loads(store.read_note(name) or "[]") for name in store.notes(FOLDER)}


def _note(leaderboard: Reference) -> str:
    return f"{FOLDER}/{leaderboard.fingerprint}.json"
