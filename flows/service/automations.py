"""Automations that `recalign up` creates: no run stays in a state that nothing will ever end.

One more, switched off, tells that a run has failed once an operator says how.
"""

from typing import Any

END = ["Completed", "Failed", "Crashed", "Cancelled"]
SILENT_SECONDS = 300  # five heartbeats
START_SECONDS = 900  # a worker that took a run needs seconds; a busy machine more


def _unless(
    name: str, after: list[str], expect: list[str], seconds: int, state: str, message: str
) -> dict[str, Any]:
    """Change a run's state unless, after one of these events, one of those follows in time."""
    return {
        "name": name,
        "description": f"Made by `recalign up`. {message}",
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "after": [f"prefect.flow-run.{event}" for event in after],
            "expect": [f"prefect.flow-run.{event}" for event in expect],
            "threshold": 1,
            "within": seconds,
        },
        "actions": [{"type": "change-flow-run-state", "state": state, "message": message}],
    }


AUTOMATIONS = [
    _unless(
        "recalign: silent runs have crashed", ["Running", "Retrying", "heartbeat"],
        ["heartbeat", *END, "AwaitingRetry", "Paused", "Suspended"], SILENT_SECONDS, "CRASHED",
        f"No heartbeat for {SILENT_SECONDS} s: its process is gone. Retry continues the run.",
    ),
    _unless(
        "recalign: runs that never start have crashed", ["Pending", "Submitting"],
        ["Running", "Retrying", *END, "Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot",
         "Cancelling"], START_SECONDS, "CRASHED",
        f"Taken by a worker but not started within {START_SECONDS} s. Retry starts the run.",
    ),
    _unless(
        "recalign: runs that nobody cancels are cancelled", ["Cancelling"], END, SILENT_SECONDS,
        "CANCELLED", f"No worker cancelled the run within {SILENT_SECONDS} s.",
    ),
    {
        "name": "recalign: tell that a run has failed (off: choose how to be told)",
        "description": "Made by `recalign up`, switched off; see docs/operations.md.",
        "enabled": False,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "expect": ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [{"type": "do-nothing"}],
    },
]  # fmt: skip
