"""The tables of results: what each cell says, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recalign.metric_columns import Metric, cells, metrics_in, primary_of, told_intervals
from recalign.report.content import Card, Cell, Grid
from recalign.report.wording import (
    MEANINGS,
    RANKED,
    TOO_FEW,
    VERDICTS,
    count,
    interval,
    metric,
    percent,
    relative,
    signed,
    tone_of,
)

OTHERS = (
    ("HR", 10), ("NDCG", 10), ("popularity lift", None), ("NDCG", None), ("NDCG", 5), ("HR", 5),
    ("MAP", 5),
)  # fmt: skip
"""Beside the primary metric in the main tables, as many as the page is wide for."""
WIDTH = 5  # metrics of a main table
Line = Mapping[str, Any]  # one line of RESULTS


def headline_metrics(results: pl.DataFrame, primary: Metric, lists: str) -> list[Metric]:
    """The metrics of the main table of one ranking, the one to compare by first; [] without any.

    The primary metric if there is one (a short candidate list may not reach its cut-off), then
    `OTHERS` as far as they are there and fit.
    """
    own = [one for one in metrics_in(results) if one.lists == lists]
    wanted = [primary._replace(lists=lists), *(Metric(lists, *other) for other in OTHERS)]
    found = [one for one in dict.fromkeys(wanted) if one in own]
    return (found or own)[:WIDTH]


def result_grid(
    results: pl.DataFrame, metrics: Sequence[Metric], budgets: pl.DataFrame | None = None
) -> Grid:
    """RESULTS in the first metric, with its difference to the base rows, and the others beside it.

    BUDGETS, if given, become the columns Pairs and Steps.

    Rows without the first metric (an LLM that ranks only the candidates it is shown has none
    over the catalogue) are left out.
    """
    primary, *others = metrics
    lined = cells(results)
    lines = [lined[row, primary] for row in primary.lines(results)["row"]]
    spent = {} if budgets is None else {one["row"]: budget_cells(one) for one in budgets.to_dicts()}
    return Grid(
        ["Row, and what it is compared with", primary.name, "Difference",
         *(one.name for one in others), *(["Pairs", "Steps"] if spent else [])],
        [
            [Cell(line["row"], line["base"] or ""), mean_cell(line), difference_cell(line),
             *(mean_cell(lined.get((line["row"], one))) for one in others),
             *spent.get(line["row"], [])]
            for line in lines
        ],
        title=RANKED[primary.lists],
        marked=[place for place, line in enumerate(lines) if line["policy"] == "aligned"],
    )  # fmt: skip


def mean_cell(line: Line | None) -> Cell:
    """A mean with its interval; an en dash where there is none."""
    return Cell(metric(line["mean"]), _own_bounds(line)) if line else Cell("–")


def budget_cells(line: Line) -> list[Cell]:
    """Pairs and optimiser steps of a line of BUDGETS; empty where nothing was trained."""
    if line["planned_steps"] is None:
        return [Cell(""), Cell("")]
    kept = f"kept: step {line['best_step']} of {line['steps']}"
    return [Cell(count(line["pairs"])), Cell(count(line["planned_steps"]), kept)]


def difference_cell(line: Line) -> Cell:
    """A difference with its interval; empty where nothing is compared."""
    if line["difference"] is None:
        return Cell("")
    share = f" ({told})" if (told := relative(line)) else ""
    return Cell(signed(line["difference"]) + share, bounds(line), tone_of(line))


def bounds(line: Line) -> str:
    """The interval of a line's difference; empty where nothing is compared."""
    if line["difference"] is None:
        return ""
    return interval(line["difference_low"], line["difference_high"], with_sign=True) or TOO_FEW


def _own_bounds(line: Line) -> str:
    return interval(line["low"], line["high"]) or TOO_FEW


def metric_cards(lines: Sequence[Line]) -> list[Card]:
    """A row of RESULTS in some metrics, and how far each is from that of the base row."""
    cards = []
    for line in lines:
        one, tone = Metric(line["lists"], line["measure"], line["k"]), tone_of(line)
        change = signed(line["difference"]) if line["base"] else ""
        change += f": {VERDICTS[tone]}" if tone else ""
        name, meaning = f"{one.name}, {RANKED[one.lists].lower()}", MEANINGS.get(one.measure, "")
        cards.append(Card(name, metric(line["mean"]), change, bounds(line), tone, meaning))
    return cards


def every_result(results: pl.DataFrame) -> Grid:
    """All lines of RESULTS."""
    return Grid(
        ["Row", "Metric", "Mean", "95 % interval", "Compared with", "Difference", "Its interval"],
        [
            [Cell(row), Cell(one.label), Cell(metric(line["mean"])),
             Cell(_own_bounds(line)), Cell(line["base"] or ""),
             Cell(signed(line["difference"]) if line["base"] else ""), Cell(bounds(line))]
            for (row, one), line in cells(results).items()
        ],
        title="Every metric of every row",
        words=("Metric", "Compared with"),
    )  # fmt: skip


def recommended_grid(recommended: pl.DataFrame) -> Grid:
    """RECOMMENDED: what the heads of the lists hold."""
    return Grid(
        ["Row", "Share of the catalogue", "Gini", "Mean popularity", "Outside the most popular "
         "fifth"],
        [
            [Cell(line["row"]), Cell(percent(line["coverage"])), Cell(f"{line['gini']:.3f}"),
             Cell(f"{line['average_popularity']:.1f}"), Cell(percent(line["long_tail_share"]))]
            for line in recommended.iter_rows(named=True)
        ],
        title="What is recommended",
    )  # fmt: skip


def result_lines(results: pl.DataFrame) -> list[dict[str, str]]:
    """One line per row of RESULTS in what rows are compared by first, as text."""
    primary, results = primary_of(results), told_intervals(results)
    shown = headline_metrics(results, primary, primary.lists)[0]
    return [
        {
            "row": line["row"],
            shown.name: metric(line["mean"]),
            "95 % interval": _own_bounds(line),
            "difference": signed(line["difference"]) if line["base"] else "",
            "its 95 % interval": bounds(line),
            "against": line["base"] or "",
        }
        for line in shown.lines(results).iter_rows(named=True)
    ]
