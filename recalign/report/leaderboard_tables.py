"""The tables of a sweep's page: settings, comparisons, rows and runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from recalign.config import ShownSetting
from recalign.metric_columns import FEWEST_USERS, Metric, told_intervals
from recalign.report.content import Cell, Grid
from recalign.report.wording import (
    LESS_IS_BETTER,
    TOO_FEW,
    Tone,
    count,
    duration,
    interval,
    metric,
    signed,
)

ALPHA = 0.05
N_SHOWN = 6  # metrics beside the first one
N_TOLD = 6  # seeds told in a line of the comparisons
COSTS = {"cpu_seconds": "CPU time", "tokens": "Tokens", "pairs": "Pairs"}
Line = Mapping[str, Any]


@dataclass(frozen=True)
class LeaderboardRun:
    """What a sweep has to show; tables have the schemas of `recalign.schemas`."""

    title: str
    created: str
    """Time of its newest run, as it should be printed."""
    settings: Sequence[ShownSetting]
    metrics: Sequence[Metric]
    """The one to compare by first."""
    board: pl.DataFrame
    """LEADERBOARD."""
    comparisons: pl.DataFrame
    """COMPARISONS, over all seeds."""
    cells: pl.DataFrame
    """CELLS."""
    validated_by: Mapping[str, Metric]
    """What the validations of each setting are measured in."""
    chosen: tuple[str, int] | None
    """The setting with the best validation on a seed, and that seed; None: nothing to choose."""
    confirmed: pl.DataFrame
    """COMPARISONS of the setting to trust, over seeds that it was not chosen on."""
    notes: Sequence[str] = ()
    """What is to be known of its intervals."""


def as_told(run: LeaderboardRun) -> LeaderboardRun:
    """The run as people may read it: its tables as `told_intervals` are."""
    return replace(
        run,
        board=told_intervals(run.board),
        comparisons=told_intervals(run.comparisons),
        confirmed=told_intervals(run.confirmed),
    )


def verdict_of(line: Line) -> Tone:
    """What a comparison shows once it is corrected for how many there are.

    "" with one seed, and of too few users for an interval.
    """
    if line["n_seeds"] < 2 or line["n_users"] < FEWEST_USERS:
        return ""
    if line["p_holm"] >= ALPHA:
        return "same"
    return "better" if (line["difference"] > 0) != _less(line) else "worse"


def _less(line: Line) -> bool:
    return line["measure"] in LESS_IS_BETTER


def settings_grid(run: LeaderboardRun) -> Grid:
    """One line per setting: what differs, its row in every metric, comparisons and costs."""
    fields, axis = fields_of(run.settings), axis_of(run.settings)
    fields = fields if len(fields) > 1 else []
    shown, primary = run.metrics[1 : 1 + N_SHOWN], run.metrics[0]
    compared = {(line["setting"], line["question"]): line
                for line in run.comparisons.iter_rows(named=True)}  # fmt: skip
    costs = _mean_costs(run.cells)
    rows = []
    for setting in run.settings:
        own = run.board.filter(setting=setting.label, headline=True)
        if own.is_empty():
            continue
        lines = {one: one.lines(own).row(0, named=True) for one in run.metrics}
        values = dict(text.split("=", 1) for text in setting.values)
        order = number_of(setting.values[0].split("=", 1)[1]) if axis else None
        row = [Cell(setting.label, lines[primary]["row"], order=order)]
        row += [_value_cell(values[name]) for name in fields]
        row += [_mean_cell(lines[primary]), _base_cell(lines[primary], compared)]
        if len(run.settings) > 1:
            row.append(_first_cell(setting.label, run, compared))
        row += [_cost_cell(name, costs[setting.label]) for name in COSTS]
        rows.append(row + [_mean_cell(lines[one]) for one in shown])
    header = ["Setting", *fields, primary.label, "against its own base"]
    header += [f"against {run.settings[0].label}"] if len(run.settings) > 1 else []
    header += [*COSTS.values(), *(one.label for one in shown)]
    return Grid(header, rows, words=fields, sorts=True)


def fields_of(settings: Sequence[ShownSetting]) -> list[str]:
    """The fields that all settings give a value, which get columns of their own."""
    given = [[text.split("=", 1)[0] for text in one.values] for one in settings]
    return given[0] if all(one == given[0] for one in given) else []


def axis_of(settings: Sequence[ShownSetting]) -> str:
    """The one field whose values are numbers, if settings differ in nothing else."""
    fields = fields_of(settings)
    values = [one.values[0].split("=", 1)[1] for one in settings] if len(fields) == 1 else []
    return fields[0] if values and all(number_of(text) is not None for text in values) else ""


def number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _value_cell(text: str) -> Cell:
    return Cell(text, order=number_of(text))


def _mean_cell(line: Line) -> Cell:
    bounds = interval(line["low"], line["high"]) or TOO_FEW
    return Cell(metric(line["mean"]), bounds, order=line["mean"])


def _base_cell(line: Line, compared: Mapping[tuple[str, str], Line]) -> Cell:
    found = compared.get((line["setting"], f"Is it better than {line['base']}?"))
    return _difference_cell(found) if found else Cell("")


def _first_cell(label: str, run: LeaderboardRun, compared: Mapping[tuple[str, str], Line]) -> Cell:
    found = compared.get((label, f"Is it better than {run.settings[0].label}?"))
    if found:
        return _difference_cell(found)
    first = label == run.settings[0].label
    return Cell("", "the others are compared with it" if first else "no training seed in common")


def _difference_cell(line: Line) -> Cell:
    bounds = interval(line["low"], line["high"], with_sign=True) or TOO_FEW
    return Cell(signed(line["difference"]), bounds, verdict_of(line), line["difference"])


def _mean_costs(cells: pl.DataFrame) -> dict[str, Line]:
    """Per setting, the mean over its runs."""
    means = cells.drop_nulls("run").group_by("setting").agg(pl.col(COSTS).mean())
    return {line["setting"]: line for line in means.iter_rows(named=True)}


def _cost_cell(name: str, line: Line) -> Cell:
    value = line[name]
    text = duration(value) if name == "cpu_seconds" else count(round(value))
    return Cell(text, order=value)


def comparison_grid(comparisons: pl.DataFrame) -> Grid:
    """All comparisons with their intervals, seeds, p-values and what they could have found."""
    rows = []
    for line in comparisons.iter_rows(named=True):
        tone = verdict_of(line)
        own = line["base_setting"] == line["setting"]
        against = line["base"] if own else f"{line['base_setting']}, {line['base']}"
        seeds = [signed(one) for one in line["per_seed"]]
        shown = ", ".join(seeds[:N_TOLD]) + (", ..." if len(seeds) > N_TOLD else "")
        rows.append(
            [Cell(f"{line['setting']}, {line['row']}", line["question"]), Cell(against),
             _difference_cell(line), Cell(shown), Cell(_p(line["p"]), order=line["p"]),
             Cell(_p(line["p_holm"]), order=line["p_holm"]),
             Cell(metric(line["detectable"]) if tone == "same" else "", order=line["detectable"])]
        )  # fmt: skip
    return Grid(
        ["Row", "Against", "Difference", "By seed", "p", "Holm's p", "Detectable"],
        rows,
        words=("Against", "By seed"),
        sorts=True,
    )


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< .0001" if value < 0.0001 else f"{value:.4f}"


def row_grid(board: pl.DataFrame, primary: Metric) -> Grid:
    """Every row of every setting in the first metric; what is equal in several stands once."""
    seen: dict[tuple[object, ...], list[str]] = {}
    lines: dict[tuple[object, ...], Line] = {}
    for found in primary.lines(board).iter_rows(named=True):
        key = found["row"], found["mean"], *found["per_seed"], found["difference"]
        seen.setdefault(key, []).append(found["setting"])
        lines.setdefault(key, found)
    n_settings = board["setting"].n_unique()
    rows = []
    for key, line in lines.items():
        where = "every setting" if len(seen[key]) == n_settings else ", ".join(seen[key])
        change = Cell("")
        if line["base"]:
            bounds = interval(line["difference_low"], line["difference_high"], with_sign=True)
            change = Cell(signed(line["difference"]), bounds or TOO_FEW, order=line["difference"])
        rows.append(
            [Cell(line["row"], where if n_settings > 1 else ""), _mean_cell(line), change,
             Cell(line["base"] or "")]
        )  # fmt: skip
    return Grid(["Row", primary.label, "Difference", "Against"], rows, words=("Against",),
                sorts=True)  # fmt: skip


def run_grid(run: LeaderboardRun) -> Grid:
    """Every run: its figure, validation and cost, or why it failed."""
    primary = run.metrics[0]
    own = primary.lines(run.board).filter(headline=True)
    figures = {line["setting"]: list(line["per_seed"]) for line in own.iter_rows(named=True)}
    rows = []
    for line in run.cells.iter_rows(named=True):
        name = Cell(f"{line['setting']}, seed {line['seed']}", line["run"] or "failed")
        if line["error"]:
            rows.append([name, *[Cell("")] * 6, Cell(line["error"], tone="worse")])
            continue
        value = figures[line["setting"]].pop(0)
        rows.append(
            [name, Cell(metric(value), order=value),
             Cell(metric(line["validation"]), run.validated_by[line["setting"]].label,
                  order=line["validation"]),
             Cell(duration(line["cpu_seconds"]), order=line["cpu_seconds"]),
             Cell(duration(line["own_cpu_seconds"]), order=line["own_cpu_seconds"]),
             _cost_cell("tokens", line), _cost_cell("pairs", line), Cell("")]
        )  # fmt: skip
    header = ["Run", primary.label, "Validation", "CPU time", "this run alone", "Tokens", "Pairs"]
    return Grid([*header, "Failed"], rows, words=("Failed",), sorts=True)
