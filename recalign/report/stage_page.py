"""One artifact as a Markdown page: what its manifest tells, its tables and its pictures."""

import base64
import html
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from recalign.artifacts.manifest import Manifest
from recalign.metric_columns import Metric, cells, metrics_in, told_intervals
from recalign.report.drawing import PAPER
from recalign.report.result_lines import difference_cell
from recalign.report.wording import count, duration, metric, plural, reasons

MAX_FIGURES = 24  # lines of the table of figures


def stage_page(manifest: Manifest, sections: Sequence[str]) -> str:
    """The page of an artifact; `sections` are Markdown texts of the stage's own: tables, pictures.

    Equal manifests give equal pages: nothing here depends on who asks.
    """
    made = (
        f"**{plural(manifest.rows, 'row')}** in `{manifest.reference.name}`, "
        f"computed in {duration(manifest.seconds)} on {manifest.device} "
        f"({manifest.created:%Y-%m-%d %H:%M} UTC)."
    )
    left_out = reasons(manifest.dropped)
    parts = [made, f"Left out: {escape(left_out)}." if left_out else "", *sections]
    parts += [_figures(manifest.figures), _settings(manifest.config), _inputs(manifest)]
    return "\n\n".join(part for part in parts if part) + "\n"


def picture(svg: str) -> str:
    """An `<svg>` element as a Markdown image that needs no file; on paper, for dark pages too."""
    named = re.search(r'aria-label="([^"]*)"', svg)
    name = html.unescape(named.group(1)) if named else "plot"
    opaque = svg.replace('style="', f'style="background:{PAPER};', 1)
    data = base64.b64encode(opaque.encode()).decode()
    return f"![{escape(name)}](data:image/svg+xml;base64,{data})"


def table_section(title: str, table: pl.DataFrame) -> str:
    """A short table under a heading; empty for a table without rows."""
    if table.is_empty():
        return ""
    rows = [table.columns, ["---"] * table.width]
    rows += [[escape(_text(value)) for value in row] for row in table.iter_rows()]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def result_table(results: pl.DataFrame, metrics: Sequence[Metric]) -> str:
    """One line per row of RESULTS; of each metric the mean, its difference to the base row and
    the 95 % interval of that difference. ValueError: a metric that the table does not have.
    """
    missing = [one.label for one in metrics if one not in metrics_in(results)]
    if missing:
        raise ValueError(f"the results have no {', '.join(missing)}")
    header = ["row", "compared with"]
    for name in metrics:
        header += [name.label, "difference", "95 % interval"]
    lines = [header, ["---", "---", *["---:"] * (3 * len(metrics))]]
    lined = cells(told_intervals(results))
    for row in results["row"].unique(maintain_order=True):
        base = lined[row, metrics[0]]["base"]
        line = [escape(row), escape(base or "")]
        for name in metrics:
            shift = difference_cell(lined[row, name])
            line += [metric(lined[row, name]["mean"]), shift.text, shift.below]
        lines.append(line)
    n_users = count(results["n_users"].item(0))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{n_users} users; 95 % bootstrap intervals over users, paired.\n"


def escape(text: str) -> str:
    """Text that can stand in a Markdown table: no markup, no cell borders, no line breaks."""
    for character in "\\`*_{}[]<>#|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _figures(figures: dict[str, Any]) -> str:
    lines = [
        f"| {escape(name)} | {escape(_text(value))} |"
        for name, value in figures.items()
        if value not in ({}, [], None)
    ]
    if not lines:
        return ""
    more = [f"| and {len(lines) - MAX_FIGURES} more | |"] if len(lines) > MAX_FIGURES else []
    return "\n".join(["### Figures", "", "| | |", "|---|---|", *lines[:MAX_FIGURES], *more])


def _settings(config: dict[str, Any]) -> str:
    if not config:
        return ""
    lines = "\n".join(f"{name} = {_text(value)}" for name, value in config.items())
    return f"### Settings\n\n```\n{lines}\n```"


def _inputs(manifest: Manifest) -> str:
    if not manifest.inputs:
        return ""
    names = (f"{name}: `{reference.name}`" for name, reference in manifest.inputs.items())
    return f"Made from {', '.join(names)}."


def _text(value: Any) -> str:
    """A figure as people read it: 4 significant digits, thousands apart, nested ones in a row."""
    match value:
        case bool() | str():
            return str(value)
        case int():
            return count(value)
        case float():
            return f"{value:.4g}"
        case dict():
            return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(_text(inner) for inner in value)
    return str(value)
