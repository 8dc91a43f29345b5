"""What every flow does around its stages: ask, name the run, plan first, show the outcome last."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any
from uuid import UUID

from filelock import Timeout
from prefect import Flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from pydantic import Field, WithJsonSchema

from flows.service import cancelling, processes
from flows.service.reports import link_to
from recalign.artifacts.claims import Lock
from recalign.artifacts.manifest import Reference
from recalign.config import Config, Runtime
from recalign.config.presets import Settings, changes, complete
from recalign.errors import UserError
from recalign.report import PAGE
from tasks.engine.device import wanted_device
from tasks.engine.run import Run, Step, StoppedAfter, check_stage_names
from tasks.engine.run_names import announce, flat, name_of, start_of
from tasks.engine.run_page import show_results
from tasks.engine.stage import Stage

log = logging.getLogger(__name__)

LOGGERS = ("recalign", "tasks", "flows")


def _without_traceback(record: logging.LogRecord) -> bool:
    """A user's mistake is a sentence; its traceback would only hide it."""
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.exc_info = None
    return True


def quiet_user_errors() -> None:
    """Let Prefect log a UserError as one line."""
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_without_traceback)


def one_of(*choices: str) -> Any:
    """Annotation of a text that the run form offers as a choice; the flow itself takes any text."""
    return WithJsonSchema({"type": "string", "enum": list(choices)})


def titled(words: str) -> Any:
    """Annotation of a parameter that the run form calls so, and not by its name."""
    return Field(json_schema_extra={"title": words})


def settle(start: Settings, given: Settings | dict[str, Any]) -> Settings:
    """A flow's settings on top of what it starts from, checked; UserError names what is wrong.

    Flows take their parameters unvalidated and call this first: Prefect's own check would tell a
    mistake with a traceback. Nothing is guessed: a value that is given counts, whatever it is, and
    one that a request leaves out is that of the start.
    """
    quiet_user_errors()
    return complete(start, given) if isinstance(given, dict) else given


@dataclass(frozen=True)
class Wiring:
    """What a method does: the settings it takes, the stages it may call, its walk through them."""

    name: str
    """Of the method, and of its flow."""
    config: type[Config]
    stages: tuple[Stage, ...]
    """In the order of a run; the last one makes the report."""
    walk: Callable[[Run, Any], Reference]
    """Calls the stages for a configuration; returns the report."""
    about: str | None
    """The flow's description."""
    headline: Callable[[Any], str] = lambda config: ""
    """The row of the results that a configuration is about; empty: the aligned policy's."""

    @cached_property
    def flow(self) -> Flow[..., Any]:
        """The method as a Prefect flow; its parameters are the run form."""
        model, names = self.config, [stage.name for stage in self.stages]

        def method(
            plan_only: Annotated[bool, titled("Only plan")] = False,
            force: Annotated[
                list[Annotated[str, one_of(*names)]], titled("Stages to compute anew")
            ] = [],
            stop_after: Annotated[str, one_of("", *names), titled("Last stage")] = "",
            config: Annotated[model, titled(model.heading)] = model(),  # type: ignore[valid-type]
            runtime: Annotated[Runtime, titled(Runtime.heading)] = Runtime(),
        ) -> Any:
            """Run the method from raw interactions to its report.

            Args:
                plan_only: Only show which stages would be computed, and why.
                force: Stages to compute anew even when their artifacts exist.
                stop_after: Last stage to run; empty: all.
                config: Settings of every stage; what is unchanged since an earlier run is reused.
                runtime: Where and how to compute; changes nothing in the results.
            """
            start = start_of(model(), "config")
            settings: Any = settle(start, config)  # refused before a root is made
            run = Run(settle(start_of(Runtime(), "runtime"), runtime), frozenset(force), stop_after)
            name = name_of(self.name, start, settings, stop_after)
            data = f"data: {settings.interactions.name}"
            announce(("plan: " if plan_only else "") + name, self.name, data)
            return conduct(self, run, settings, plan_only)

        method.__name__ = method.__qualname__ = self.name.replace("-", "_")
        method.__module__ = self.walk.__module__
        return Flow(
            method, name=self.name, description=self.about, validate_parameters=False
        )  # fmt: skip


def conduct(wiring: Wiring, run: Run, config: Config, plan_only: bool) -> Any:
    """A whole flow run: its plan, its stages, its outcome. Returns the path of the report."""
    if run.runtime.device == "cuda" and not plan_only:
        wanted_device(run.runtime)  # told before hours of other stages
    with run.store.in_use():
        note = settings_in_words(config)
        steps = prepare(run, wiring.stages, lambda walk: wiring.walk(walk, config), note)
        if plan_only:
            return Completed(message=f"Only planned, as asked: {outlook(steps)}")
        try:
            page = finish(run, wiring.walk(run, config))
            return Completed(message=run.note or None, data=page)
        except StoppedAfter as stopped:
            return Completed(message=f"Stopped after {stopped}, as asked")


def alone(lock: Lock, patience: float, what: str, work: Callable[[], str]) -> Any:
    """The state of a run that only one may do at a time: `work` tells how it ended.

    Where another run holds the lock for longer than `patience` seconds, this one is skipped.
    """
    try:
        held = lock.acquire(timeout=patience)
    except Timeout:
        busy = f"{what} is being advanced by another run: this one leaves it alone"
        return Completed(name="Skipped", message=busy)
    with held:
        return Completed(message=work())


def settings_in_words(config: Config) -> str:
    """What a run does differently from its method's defaults."""
    changed = ", ".join(f"`{text}`" for text in flat(changes(type(config)(), config)))
    return f"Settings that differ from the defaults: {changed or 'none'}."


def plan(run: Run, walk: Callable[[Run], Any]) -> list[Step]:
    """What a run would do, without computing anything."""
    planned = Run(run.runtime, run.force, run.stop_after, plan_only=True)
    try:
        walk(planned)
    except StoppedAfter:
        log.debug("the plan ends at %s", run.stop_after)
    return planned.steps


def _named_by_stage(record: logging.LogRecord) -> bool:
    """Lines of ours begin with the stage that they are from, as the flow calls it."""
    context, told = TaskRunContext.get(), record.getMessage()
    ours = record.name.partition(".")[0] in LOGGERS
    if context and ours and not told.startswith(context.task_run.name):
        record.msg, record.args = f"{context.task_run.name}: {told}", ()
    return True


def begin_session() -> None:
    """Let Prefect show our lines; end when the worker that started this process dies or should."""
    quiet_user_errors()
    if processes.FLOW_RUN in os.environ:
        processes.end_with_parent()
        cancelling.watch(UUID(os.environ[processes.FLOW_RUN]))
    elif (own := FlowRunContext.get()) and own.flow_run and PREFECT_API_URL.value():
        cancelling.watch_own(own.flow_run)  # a temporary server ends with this process
    for name in LOGGERS:  # Prefect sends their lines to its UI but leaves them at WARNING
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("", *LOGGERS):  # the filter of a logger sees no lines of those below it
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_named_by_stage)


def prepare(
    run: Run, stages: Sequence[Stage], walk: Callable[[Run], Any], note: str = ""
) -> list[Step]:
    """Refuse unknown stage names, then show the plan as the run's first artifact."""
    begin_session()
    names = [stage.name for stage in stages]
    steps = plan(Run(run.runtime), walk)
    known = names + [step.label for step in steps if step.label not in names]
    check_stage_names(sorted(run.force), known, "force")
    check_stage_names([run.stop_after], known, "stop_after")
    for option, asked in (("force", run.force), ("stop_after", {run.stop_after} - {""})):
        if absent := sorted(asked - _reached(steps)):
            raise UserError(f"{option}: as its settings are, this run has no stage {absent[0]!r}")
    if run.force or run.stop_after:
        steps = plan(run, walk)
        if late := sorted(run.force - _reached(steps)):
            raise UserError(f"force: {late[0]} comes after stop_after {run.stop_after}")
    if FlowRunContext.get():
        log.info("%s", outlook(steps))
        create_table_artifact(
            key="plan",
            table=[plan_row(step) for step in steps],
            description=f"# Plan\n\n{outlook(steps)}{first_to_do(steps)}. {note}",
        )
    return steps


def _reached(steps: list[Step]) -> set[str]:
    """All that names one of the steps."""
    return {name for step in steps for name in (step.label, step.reference.stage)}


def outlook(steps: list[Step]) -> str:
    """How much of a run is there already."""
    reused = sum(step.action == "reuse" for step in steps)
    unknown = sum(step.action == "unknown" for step in steps)
    perhaps = sum(step.action == "depends" for step in steps)
    text = f"{len(steps)} steps: {reused} reused, {len(steps) - reused - unknown - perhaps} to do"
    text += f", {perhaps} perhaps" if perhaps else ""
    return f"{text}, {unknown} not known before a download" if unknown else text


def first_to_do(steps: list[Step]) -> str:
    """What a run begins with, and why, as the UI shows ten rows of a plan at once."""
    first = next((step for step in steps if step.action == "compute"), None)
    return f", first {first.label} ({first.reason})" if first else ""


IS = {"reuse": "reused", "compute": "computed", "depends": "perhaps", "unknown": "unknown"}


def plan_row(step: Step) -> dict[str, str]:
    """One line of the plan, as shown in the terminal and in the Prefect UI."""
    row = {"stage": step.label, "artifact": step.reference.name}
    return row | {"is": IS[step.action], "why": step.reason}


def finish(run: Run, report: Reference) -> str:
    """Show the results and where the report lies; returns its path."""
    made = run.store.open(report)
    page = made.path(PAGE).resolve()
    if FlowRunContext.get():
        judged = made.manifest.inputs.get("evaluation", made.reference)
        show_results(run.store.open(judged))
        show_outcome(run, report, "report")
    log.info("report: %s", page)
    return str(page)


def show_outcome(run: Run, made: Reference, what: str) -> None:
    """Where the page of a run's last artifact lies, and a link that opens it."""
    page = run.store.open(made).path(PAGE).resolve()
    link = link_to(run.runtime.root, made.stage, made.fingerprint)
    opens = f"[Open the {what}]({link})\n\n" if link else ""
    create_markdown_artifact(key="outcome", markdown=f"{opens}The {what} is `{page}`.")
