"""Matplotlib as a maker of small, equal, inlinable SVG: one look, no date, no global state."""

import html
import re
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any  # matplotlib would be a tenth of the start of every command

INK, MUTED, RULE, PAPER = "#23282d", "#62686d", "#dcd7cc", "#fcfbf8"
PETROL, RUST, GREY, OCHRE = "#1d6078", "#b1552d", "#84888a", "#b8892f"
VIOLET, GREEN, GRID = "#6a5a8c", "#4f7d4f", "#ece8df"
MIST, SAND, CLAY, SAGE = "#c9d6da", "#e3cfa4", "#dcb08f", "#9fb8a8"
ROUND_COLOURS = (PETROL, RUST, OCHRE, VIOLET, GREEN, GREY)
THEME = {
    "ink": INK, "muted": MUTED, "rule": RULE, "paper": PAPER, "petrol": PETROL, "rust": RUST,
    "grey": GREY, "ochre": OCHRE, "violet": VIOLET, "green": GREEN, "grid": GRID, "mist": MIST,
    "sand": SAND, "clay": CLAY, "sage": SAGE,
}  # fmt: skip
"""Every colour by the name of the style sheet's variable that may put another in its place."""

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's own font
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,  # a title with dollar signs is a title
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": MUTED,
    "figure.facecolor": "none",
}

Paint = Callable[["Axes"], None]


def draw(paint: Paint, description: str, width: float = 3.4, height: float = 2.3) -> str:
    """An `<svg>` element of what `paint` puts on the axes; width and height in inches.

    Equal input gives equal bytes. `description` is its accessible name, and keeps the ids of two
    plots on one page apart. Not for several threads at once: matplotlib's settings are global.
    """
    import matplotlib  # late: it would be a tenth of the start of every command
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own matplotlibrc says
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": description})
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure.subplots())
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return themed(_inlinable(written.getvalue(), description, width))


def themed(svg: str) -> str:
    """The picture in the colours of the page it stands in, light or dark; its own elsewhere."""
    for name, colour in THEME.items():
        svg = svg.replace(colour, f"var(--{name},{colour})")
    return svg


def _inlinable(document: str, description: str, width: float) -> str:
    """The `<svg>` element alone, named, without metadata and without ids that nothing refers to.

    As wide as its place on the page, up to what its letters bear.
    """
    element = document[document.index("<svg") :]
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"<!--.*?-->\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    name = html.escape(description, quote=True)
    opening = f'<svg class="plot" role="img" aria-label="{name}" style="width:{width:g}in"'
    return element.replace("<svg", opening, 1).strip()
