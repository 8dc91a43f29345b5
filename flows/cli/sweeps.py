"""Commands that set runs side by side: sweep, compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.inventory import ROOT, Root
from flows.cli.runs import RunOptions, needs_no_server, start_server, tell_of_finished
from flows.methods import ENDS, Method
from flows.service import service
from recalign.artifacts.lineage import upwards
from recalign.artifacts.lookup import open_existing, resolve
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store
from recalign.config.presets import idle
from recalign.config.sweep import FIXED, Sweep
from recalign.errors import UserError
from recalign.report import PAGE
from recalign.report.terminal import print_table

if TYPE_CHECKING:
    from flows.sweep import Planned


@dataclass(frozen=True)
class SweepOptions:
    """What a user asks of a sweep."""

    run: RunOptions
    """What all its runs have in common."""
    over: Sequence[str] = ()
    rows: str = ""
    seeds: int = 1

    @property
    def sweep(self) -> Sweep:
        """The cells that are asked for."""
        return Sweep(self.run.preset, self.run.own, self.over, self.rows, self.seeds)


def run_sweep(method: Method, asked: SweepOptions) -> None:
    """Run all cells in this process and print the page's path; exit code 1 when some failed."""
    service.log_in(asked.run.root)
    planned = plan_cells(method, asked)  # mistakes, before a server starts
    if needs_no_server(planned.steps):
        tell_of_finished(asked.run.runtime(), planned.steps, "leaderboard")
        return
    start_server()
    from flows.sweep import INCOMPLETE, sweep

    state: Any = sweep(
        method=method.name,
        preset=asked.run.preset,
        settings=asked.run.own,
        over=list(asked.over),
        rows=asked.rows,
        seeds=asked.seeds,
        runtime=asked.run.runtime(),
        return_state=True,
    )
    page = state.result()  # raises what made the flow fail
    told = [state.message, f"leaderboard: {page}"]
    typer.echo("\n".join(filter(None, told)))
    if state.name == INCOMPLETE:
        raise typer.Exit(1)


def show_sweep(method: Method, asked: SweepOptions) -> None:
    """Print how many stages a sweep would compute; nothing is computed."""
    planned = plan_cells(method, asked)
    from flows.session import outlook
    from flows.sweep import sweep_plan

    rows = sweep_plan(planned, asked.sweep.cells(method.config))
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    typer.echo(outlook(planned.steps))


def plan_cells(method: Method, asked: SweepOptions) -> "Planned":
    """What a sweep would do; UserError for whatever is wrong with it before it starts."""
    cells, runtime = asked.sweep.cells(method.config), asked.run.runtime()
    for line in idle(cells[0].config, asked.run.own):
        if all(line in idle(cell.config, asked.run.own) for cell in cells):
            typer.echo(line, err=True)
    from flows.sweep import plan_sweep

    return plan_sweep(method, cells, runtime)


def _require_same_windows(store: Store, reports: Sequence[Manifest]) -> None:
    """UserError for runs on other data, windows or cases: their users could not be paired."""
    other = [report for report in reports if report.stage != reports[0].stage]
    if other:
        raise UserError(
            f"{reports[0].reference.name} and {other[0].reference.name} are runs of two methods, "
            "which judge a user by other measures; compare runs of one"
        )
    found = [_judged_on(store, report) for report in reports]
    first = found[0]
    for report, own in zip(reports, found, strict=True):
        for what in first | own:
            if own.get(what) != first.get(what):
                raise UserError(
                    f"{reports[0].reference.name} stands on {what} {first.get(what)}, "
                    f"{report.reference.name} on {own.get(what)}: only runs of the same data, "
                    "windows and cases can be set side by side; `recalign diff` tells what differs"
                )


def _judged_on(store: Store, report: Manifest) -> dict[str, object]:
    """What has to be the same in two runs for a user to mean the same in both."""
    found: dict[str, object] = {}
    for _, made in upwards(store, [report]):
        if made.stage in FIXED:
            found[made.stage] = made.reference.name
        for name in FIXED:
            stage, _, field = name.partition(".")
            if made.stage == stage and field in made.config:
                found[name] = made.config[field]
    return found


def compare_runs(
    runs: Annotated[list[str], typer.Argument(help="Reports, as stage/fingerprint or digits.")],
    root: Root = ROOT,
) -> None:
    """Set earlier runs side by side; those that differ in training seeds alone are one setting."""
    store = open_existing(root)
    reports = [resolve(store, name) for name in runs]
    if other := [one.reference.name for one in reports if one.stage not in ENDS]:
        raise UserError(
            f"{other[0]} is no report of a run; `recalign ls report` (RosePO: `ls comparison`)"
            " lists some"
        )
    _require_same_windows(store, reports)
    from flows.cli import side_by_side

    made = side_by_side.compare_runs(store, reports, RunOptions(root=root).runtime())
    typer.echo(f"leaderboard: {made.path(PAGE).resolve()}")
