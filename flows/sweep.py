"""A sweep: one method with many settings and training seeds; what they share is computed once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import prefect
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from prefect.states import Completed
from pydantic import Field

from flows.methods import METHODS, Method, method_named
from flows.session import begin_session, one_of, outlook, settle, show_outcome, titled
from recalign.artifacts.digests import file_digests
from recalign.artifacts.fingerprint import fingerprint
from recalign.artifacts.manifest import Reference
from recalign.artifacts.sweep_notes import forget_sweep, note_sweep
from recalign.config import Config, LeaderboardConfig, Runtime, ShownCell, ShownSetting
from recalign.config.sweep import Sweep, SweepCell
from recalign.errors import UserError
from recalign.report import PAGE
from tasks.engine.device import wanted_device
from tasks.engine.run import UNKNOWN, Run, Step
from tasks.engine.run_names import announce, start_of
from tasks.engine.stage import Stage
from tasks.leaderboard import leaderboard

log = logging.getLogger(__name__)

INCOMPLETE = "Incomplete"  # the state of a sweep of which some cells failed


@dataclass
class SweepRun(Run):
    """A walk through many cells: a stage met in an earlier cell is not called a second time.

    `cell` is the label of the one being walked; `shared` holds the fingerprints, as far as a plan
    knows them, of what belongs to several.
    """

    cell: str = ""
    shared: frozenset[str] = frozenset()
    users: list[set[str]] = field(default_factory=list)
    """The cells that stand on each of the steps."""
    _met: dict[str, tuple[Reference | Exception, set[str]]] = field(default_factory=dict)

    def __call__(
        self,
        stage: Stage,
        config: Config,
        inputs: dict[str, Reference] | None = None,
        *,
        label: str = "",
        files: dict[str, list[Path]] | None = None,
    ) -> Reference:
        """As `Run`; what failed for one cell fails for the next without being tried again."""
        identity = stage.identity(config, inputs or {}, file_digests(files or {}, self._digest))
        key, name = identity.fingerprint, label or stage.name
        unclear = UNKNOWN in identity.inputs.values()  # of which two may differ nevertheless
        if key not in self._met or unclear:
            told = name if key in self.shared or not self.cell else f"{self.cell}: {name}"
            try:
                made: Reference | Exception = super().__call__(
                    stage, config, inputs, label=told, files=files
                )
            except Exception as error:
                made = error
            else:
                self.users.append(set())
            self._met[key] = made, self.users[-1] if self.users else set()
        made, users = self._met[key]
        users.add(self.cell)
        if isinstance(made, Exception):
            raise made
        return made

    def _why_new(self, identity: Any) -> str:
        """Not told: to find the nearest of a sweep's many artifacts costs more than it tells."""
        return "new"


@dataclass(frozen=True)
class Planned:
    """What a sweep would do: each stage once, the leaderboard last, and who stands on it."""

    steps: list[Step]
    users: list[set[str]]
    """The labels of the cells that stand on each step."""

    @property
    def shared(self) -> frozenset[str]:
        """Fingerprints of what several cells stand on."""
        return frozenset(step.reference.fingerprint for step in self.of_several())

    def of_several(self) -> list[Step]:
        """The steps that several cells stand on."""
        return [s for s, cells in zip(self.steps, self.users, strict=True) if len(cells) > 1]

    def of_one(self, label: str) -> list[Step]:
        """The steps that this cell alone stands on."""
        return [s for s, cells in zip(self.steps, self.users, strict=True) if cells == {label}]


def plan_sweep(method: Method, cells: Sequence[SweepCell[Any]], runtime: Runtime) -> Planned:
    """Walk all cells without computing; UserError for whatever is wrong with one."""
    run = SweepRun(runtime, plan_only=True)
    ends = [walk_cell(method, cell, run) for cell in cells]
    run.cell = ""
    set_side_by_side(run, shown(method, cells), ends)
    return Planned(run.steps, run.users)


def walk_cell(method: Method, cell: SweepCell[Any], run: SweepRun) -> Reference:
    """One cell's stages; returns its report."""
    run.cell = cell.label
    return method.load().walk(run, cell.config)


def shown(
    method: Method, cells: Sequence[SweepCell[Any]], errors: dict[int, str] | None = None
) -> LeaderboardConfig:
    """What the leaderboard is told of the cells."""
    headline = method.load().headline
    settings = {cell.setting.label: list(cell.setting.overrides) for cell in cells}
    return LeaderboardConfig(
        title=f"Sweep of {method.name} on {data_of(cells)}",
        settings=[ShownSetting(label=label, values=given) for label, given in settings.items()],
        cells=[
            ShownCell(
                setting=cell.setting.label,
                seed=cell.seed,
                headline=headline(cell.config),
                error=(errors or {}).get(number, ""),
            )
            for number, cell in enumerate(cells)
        ],
    )


def data_of(cells: Sequence[SweepCell[Any]]) -> str:
    """The data set, which all cells share."""
    return str(cells[0].config.interactions.name)


def set_side_by_side(
    run: Run, config: LeaderboardConfig, ends: Sequence[Reference | None]
) -> Reference:
    """The leaderboard of these reports; None: the cell failed."""
    inputs = {f"cell_{number}": end for number, end in enumerate(ends) if end}
    return run(leaderboard, config, inputs)


def sweep_name(method: str, data: str, asked: Sweep) -> str:
    """What a flow run is called: method, data set, what is varied, how many seeds."""
    varied = [text.partition("=")[0] for text in asked.over] + [asked.rows] * bool(asked.rows)
    name = f"sweep of {method} on {data}" + (f" over {', '.join(varied)}" if varied else "")
    return name + (f", {asked.seeds} seeds" if asked.seeds > 1 else "")


@prefect.flow(validate_parameters=False, description=__doc__)
def sweep(
    method: Annotated[
        str, one_of(*(method.name for method in METHODS)), titled("Method")
    ] = METHODS[0].name,
    preset: Annotated[str, titled("Preset")] = "",
    settings: Annotated[list[str], titled("Settings of every run")] = [],
    over: Annotated[list[str], titled("What is varied")] = [],
    rows: Annotated[str, titled("File of rows")] = "",
    seeds: Annotated[int, Field(ge=1, le=1000), titled("Training seeds")] = 1,
    plan_only: Annotated[bool, titled("Only plan")] = False,
    runtime: Annotated[Runtime, titled(Runtime.heading)] = Runtime(),
) -> Any:
    """Run a method with every setting and training seed, and set the results side by side.

    Args:
        method: What is run.
        preset: Packaged settings to start from, or the path of a TOML file.
        settings: Changes for every run, as stage.field=value.
        over: What is varied, as stage.field=value,value,...; several make a grid.
        rows: Path of a TOML file with a table of settings per row; its name is the row's.
        seeds: Training seeds of every setting; seed 0 is the ordinary run.
        plan_only: Only tell how many stages would be computed.
        runtime: Where and how to compute; changes nothing in the results.
    """
    begin_session()
    chosen = method_named(method)
    asked = Sweep(preset, settings, over, rows, seeds)
    cells = asked.cells(chosen.config)
    how: Runtime = settle(start_of(Runtime(), "runtime"), runtime)
    run = SweepRun(how)
    if how.device == "cuda" and not plan_only:
        wanted_device(how)  # told before hours of other stages
    data = data_of(cells)
    name = sweep_name(chosen.name, data, asked)
    announce(("plan: " if plan_only else "") + name, chosen.name, f"data: {data}")
    with run.store.in_use():
        planned = plan_sweep(chosen, cells, run.runtime)
        show_sweep_plan(planned, cells)
        if plan_only:
            return Completed(message=f"Only planned, as asked: {outlook(planned.steps)}")
        run.shared = planned.shared
        # A sweep with nothing to compute writes nothing: its root may be another user's.
        new = any(step.action != "reuse" for step in planned.steps)
        return conduct_sweep(chosen, cells, run, name_of_note(chosen, cells) if new else "")


def name_of_note(method: Method, cells: Sequence[SweepCell[Any]]) -> str:
    """The same for whoever asks for these cells again, whatever is known of their data by then."""
    settings = [cell.config.settled().model_dump(mode="json") for cell in cells]
    return fingerprint({"method": method.name, "cells": settings})


def conduct_sweep(method: Method, cells: Sequence[SweepCell[Any]], run: SweepRun, note: str) -> Any:
    """All cells, then their page; UserError when not a single one succeeds.

    Until the page stands on them, a note of this name keeps their reports; "": none is written.
    """
    ends: list[Reference | None] = []
    errors: dict[int, str] = {}
    for number, cell in enumerate(cells):
        log.info("cell %d of %d: %s", number + 1, len(cells), cell.label)
        end = None
        try:
            end = walk_cell(method, cell, run)
        except Exception as error:
            errors[number] = in_one_line(error)
            log.error("%s failed: %s", cell.label, errors[number])
        ends.append(end)
        if note and end:
            note_sweep(run.store, note, filter(None, ends))
    if len(errors) == len(cells):
        raise UserError(f"all {len(cells)} cells failed, the first with: {errors[0]}")
    run.cell = ""
    made = run.store.open(set_side_by_side(run, shown(method, cells, errors), ends))
    if note:
        forget_sweep(run.store, note)
    page = str(made.path(PAGE).resolve())
    if FlowRunContext.get():
        show_outcome(run, made.reference, "leaderboard")
    log.info("leaderboard: %s", page)
    if not errors:
        return page
    failed = "; ".join(f"{cells[number].label}: {why}" for number, why in errors.items())
    told = f"{len(errors)} of {len(cells)} cells failed: {failed}"
    return Completed(name=INCOMPLETE, message=told, data=page)


def in_one_line(error: Exception) -> str:
    """Why a cell failed; of what is no user's mistake, with the error's kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def show_sweep_plan(planned: Planned, cells: Sequence[SweepCell[Any]]) -> None:
    """The plan as the run's first artifact."""
    if FlowRunContext.get():
        log.info("%s", outlook(planned.steps))
        rows = sweep_plan(planned, cells)
        text = f"# Plan\n\n{outlook(planned.steps)}."
        create_table_artifact(key="plan", table=rows, description=text)


def sweep_plan(planned: Planned, cells: Sequence[SweepCell[Any]]) -> list[dict[str, str]]:
    """One line for what several cells stand on, and one per cell for what is its own."""
    shares = {"several cells": planned.of_several()}
    shares |= {cell.label: planned.of_one(cell.label) for cell in cells}
    return [{"of": label} | counted(steps) for label, steps in shares.items()]


def counted(steps: Sequence[Step]) -> dict[str, str]:
    """How many steps there are, and how many of them are to do."""
    reused = sum(step.action == "reuse" for step in steps)
    return {"stages": str(len(steps)), "reused": str(reused), "to do": str(len(steps) - reused)}
