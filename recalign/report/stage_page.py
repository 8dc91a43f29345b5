"""One artifact as a Markdown page: what its manifest tells, and the pictures of its stage."""

import base64
import html
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from recalign.artifacts.manifest import Manifest
from recalign.report.drawing import PAPER
from recalign.report.markdown import escape
from recalign.report.wording import count, duration, plural, reasons

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
    opaque = svg.replace("<svg", f'<svg style="background:{PAPER}"', 1)
    data = base64.b64encode(opaque.encode()).decode()
    return f"![{escape(name)}](data:image/svg+xml;base64,{data})"


def table_section(title: str, table: pl.DataFrame) -> str:
    """A short table under a heading; empty for a table without rows."""
    if table.is_empty():
        return ""
    rows = [table.columns, ["---"] * table.width]
    rows += [[escape(_text(value)) for value in row] for row in table.iter_rows()]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
