"""The tables of the page: what each cell says, as text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from recalign.metric_columns import CATALOGUE, NDCG_AT_10, Metric, cells, metrics_in
from recalign.report.content import Cell, StageRun
from recalign.report.forest import colour_of
from recalign.report.wording import interval, metric, percent, signed

OTHERS = (
    ("HR", 10), ("NDCG", 10), ("popularity lift", None), ("NDCG", None), ("NDCG", 5), ("HR", 5),
)  # fmt: skip
"""Beside the primary metric in the main tables, as many as the page is wide for."""
WIDTH = 5  # metrics of a main table


@dataclass(frozen=True)
class TableRow:
    """The primary metric, its difference to that of the row `base`, and the other metrics."""

    label: str
    is_aligned: bool
    base: str
    primary: Cell
    difference: Cell
    others: Sequence[Cell]


@dataclass(frozen=True)
class ResultTable:
    """Rows of one kind of ranking, full catalogue or candidate lists."""

    primary: Metric
    others: Sequence[Metric]
    rows: Sequence[TableRow]


def result_table(results: pl.DataFrame, primary: Metric, others: Sequence[Metric]) -> ResultTable:
    """RESULTS in `primary`, with its difference to the base rows, and the `others` beside it.

    Rows without the primary metric (an LLM that ranks only the candidates it is shown has none
    over the catalogue) are left out.
    """
    lined = cells(results)
    rows = []
    for label in primary.lines(results)["row"]:
        of = lined[label, primary]
        rows.append(
            TableRow(
                label=label,
                is_aligned=of["policy"] == "aligned",
                base=of["base"] or "",
                primary=_mean(of),
                difference=_difference(of),
                others=[_mean(lined.get((label, name))) for name in others],
            )
        )
    return ResultTable(primary, others, rows)


def _mean(cell: Mapping[str, Any] | None) -> Cell:
    if cell is None:
        return Cell("–")
    return Cell(metric(cell["mean"]), interval(cell["low"], cell["high"]))


def _difference(cell: Mapping[str, Any]) -> Cell:
    difference, low, high = (cell[n] for n in ("difference", "difference_low", "difference_high"))
    if difference is None:
        return Cell("")
    text = signed(difference)
    if cell["relative"] is not None:
        text += f" ({percent(cell['relative'], 1, True)})"
    return Cell(text, interval(low, high, with_sign=True), colour_of(low, high))


def headline_metrics(results: pl.DataFrame, primary: Metric, lists: str) -> list[Metric]:
    """The metrics of the main table of one ranking, the one to compare by first; [] without any.

    The primary metric if there is one (a short candidate list may not reach its cut-off), then
    `OTHERS` as far as they are there and fit.
    """
    own = [one for one in metrics_in(results) if one.lists == lists]
    wanted = [primary._replace(lists=lists), *(Metric(lists, *other) for other in OTHERS)]
    found = [one for one in dict.fromkeys(wanted) if one in own]
    return (found or own)[:WIDTH]


def every_result(results: pl.DataFrame) -> list[tuple[str, ...]]:
    """All lines of RESULTS as text: row, metric, mean, interval, base, difference, interval."""
    return [
        (
            row, name.label, metric(cell["mean"]), interval(cell["low"], cell["high"]),
            cell["base"] or "", signed(cell["difference"]) if cell["base"] else "",
            interval(cell["difference_low"], cell["difference_high"], with_sign=True),
        )
        for (row, name), cell in cells(results).items()
    ]  # fmt: skip


def result_lines(results: pl.DataFrame) -> list[dict[str, str]]:
    """One line of plain text per row of RESULTS, in NDCG@10 or another metric of the catalogue."""
    shown = headline_metrics(results, NDCG_AT_10, CATALOGUE)[0]
    return [
        {
            "row": cell["row"],
            shown.name: metric(cell["mean"]),
            "95 % interval": interval(cell["low"], cell["high"]),
            "difference": signed(cell["difference"]) if cell["base"] else "",
            "its 95 % interval": interval(
                cell["difference_low"], cell["difference_high"], with_sign=True
            ),
            "against": cell["base"] or "",
        }
        for cell in shown.lines(results).iter_rows(named=True)
    ]


def facet_table(facets: pl.DataFrame) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    """Facet names, and for each set of texts one cell per facet: precision over recall."""
    names = list(facets["facet"].unique(maintain_order=True))
    rows = []
    for texts in facets["texts"].unique(maintain_order=True):
        own = {c["facet"]: c for c in facets.filter(pl.col("texts") == texts).iter_rows(named=True)}
        rows.append(
            (
                texts,
                [
                    Cell(_three(own[name]["precision"]), _three(own[name]["recall"]))
                    if name in own
                    else Cell("–")
                    for name in names
                ],
            )
        )
    return names, rows


def shared_packages(stages: Sequence[StageRun]) -> dict[str, str]:
    """The version of each package that most artifacts were made with: {"torch": "2.13.0"}."""
    versions: dict[str, Counter[str]] = {}
    for run in stages:
        for name, version in run.packages.items():
            versions.setdefault(name, Counter())[version] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in versions.items()}


def own_packages(run: StageRun, shared: Mapping[str, str]) -> str:
    """The versions in which one artifact differs from the shared ones."""
    differing = [f"{name} {v}" for name, v in run.packages.items() if shared.get(name) != v]
    return ", ".join(differing)


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
