"""What every flow does around its stages: check names, show the plan first, the outcome last."""

import logging
from collections.abc import Callable
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext

from recalign.artifacts.manifest import Reference
from recalign.errors import UserError
from tasks.report import page_of
from tasks.run import Run, Step, StoppedAfter, check_stage_names
from tasks.stage import Stage

log = logging.getLogger(__name__)

LOGGERS = ("recalign", "tasks", "flows")


class _WithoutTraceback(logging.Filter):
    """A user's mistake is a sentence; its traceback would only hide it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], UserError):
            record.exc_info = None
        return True


def quiet_user_errors() -> None:
    """Let Prefect log a UserError as one line."""
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_WithoutTraceback())


def plan(run: Run, walk: Callable[[Run], Any]) -> list[Step]:
    """What a run would do, without computing anything."""
    planned = Run(run.runtime, run.force, run.stop_after, plan_only=True)
    try:
        walk(planned)
    except StoppedAfter:
        log.debug("the plan ends at %s", run.stop_after)
    return planned.steps


def prepare(run: Run, stages: list[Stage], walk: Callable[[Run], Any]) -> list[Step]:
    """Refuse unknown stage names, then show the plan as the run's first artifact."""
    for name in LOGGERS:  # Prefect sends their lines to its UI but leaves them at WARNING
        logging.getLogger(name).setLevel(logging.INFO)
    names = [stage.name for stage in stages]
    steps = plan(Run(run.runtime), walk)
    known = names + [step.label for step in steps if step.label not in names]
    check_stage_names(sorted(run.force), known, "force")
    check_stage_names([run.stop_after], known, "stop_after")
    if run.force or run.stop_after:
        steps = plan(run, walk)
    todo = [step for step in steps if step.action != "reuse"]
    if FlowRunContext.get():
        log.info("%d steps: %d reused, %d to do", len(steps), len(steps) - len(todo), len(todo))
        create_table_artifact(
            key="plan", table=[plan_row(step) for step in steps], description="# Plan"
        )
    return steps


def plan_row(step: Step) -> dict[str, str]:
    """One line of the plan, as shown in the terminal and in the Prefect UI."""
    what = {"reuse": "reused", "compute": "computed", "depends": "computed"}[step.action]
    return {"stage": step.label, "artifact": step.reference.name, "is": what, "why": step.reason}


def finish(run: Run, report: Reference) -> str:
    """Tell where the report lies; returns its path."""
    page = page_of(run.store.open(report)).resolve()
    if FlowRunContext.get():
        create_markdown_artifact(key="report", markdown=f"The report is `{page}`.")
    log.info("report: %s", page)
    return str(page)
