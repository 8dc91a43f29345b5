"""The methods: all that the command line, the list of reports and gc need to know of one.

Scheduled rounds (`flows.rounds`) are no method of their own but dpo4rec, one round per run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.chain import METHOD_REPORTS
from recalign.config import Config, DPO4RecConfig, RosePOConfig
from recalign.errors import UserError

if TYPE_CHECKING:
    from flows.session import Wiring


@dataclass(frozen=True)
class Method:
    """What can be told of a method before its flow is imported, and how to import that."""

    name: str
    config: type[Config]
    """Its settings, which say where their presets are."""
    report: str
    """The stage whose page ends a run."""
    load: "Callable[[], Wiring]"
    """Import its stages and its flow, which takes seconds."""


def _dpo4rec() -> "Wiring":
    from flows.dpo4rec import WIRING

    return WIRING


def _rosepo() -> "Wiring":
    from flows.rosepo import WIRING

    return WIRING


METHODS = (
    Method("dpo4rec", DPO4RecConfig, report=METHOD_REPORTS["dpo4rec"], load=_dpo4rec),
    Method("rosepo", RosePOConfig, report=METHOD_REPORTS["rosepo"], load=_rosepo),
)
ENDS = tuple(dict.fromkeys(method.report for method in METHODS))
"""Stages that end a run of a method."""
REPORTS = (*ENDS, "leaderboard")
"""Stages whose artifact is a page for people: those, and what sets runs side by side."""


def method_named(name: str) -> Method:
    """The method of this name; UserError where there is none."""
    for method in METHODS:
        if method.name == name:
            return method
    known = ", ".join(method.name for method in METHODS)
    raise UserError(f"no method {name!r}; there are {known}")
