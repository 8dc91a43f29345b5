"""Differences to the base rows with their 95 % intervals, one line per row, around zero."""

import polars as pl

from recalign.metric_columns import Metric
from recalign.report.drawing import GREY, INK, MUTED, PAPER, PETROL, RUST, Axes, draw
from recalign.report.wording import RANKED, interval, signed, tone_of

LINE_HEIGHT = 0.6  # inches per row: its label stands above its interval, so that a phone fits
COLOURS = {"better": PETROL, "worse": RUST, "same": GREY, "": GREY}


def forest(results: pl.DataFrame, metric: Metric) -> str | None:
    """Forest plot of one metric of the RESULTS table; None when no difference has one.

    Popularity is left to the table: so far off, it would set the scale for all others.
    """
    measured = metric.lines(results).filter(pl.col("recommender") != "popularity")
    rows = measured.drop_nulls("difference_low").to_dicts()
    if not rows:
        return None

    def paint(axes: Axes) -> None:
        reach = max(max(abs(row["difference_low"]), abs(row["difference_high"])) for row in rows)
        for place, row in enumerate(rows):
            colour = COLOURS[tone_of(row)]
            low, high, y = row["difference_low"], row["difference_high"], -place - 0.1
            axes.plot([low, high], [y, y], color=colour, lw=2.2, solid_capstyle="round")
            face = PAPER if colour == GREY else colour
            axes.plot([row["difference"]], [y], "o", ms=6, mfc=face, mec=colour, mew=1.6)
            axes.plot([0, 0], [y - 0.17, y + 0.17], color=MUTED, lw=0.9, zorder=0)
            strong = INK if colour == GREY else colour
            _line(axes, y + 0.58, (row["row"], INK), (signed(row["difference"]), strong), 9)
            bounds = interval(low, high, with_sign=True)
            _line(axes, y + 0.32, (f"vs {row['base']}", MUTED), (bounds, MUTED), 8)
        axes.set(ylim=(-len(rows) + 0.55, 0.8), xlim=(-1.08 * reach or -1, 1.08 * reach or 1))
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"Difference in {metric.name}, {RANKED[metric.lists].lower()}", color=INK)
        axes.locator_params(axis="x", nbins=5)

    compared = "; ".join(row["row"] for row in rows)
    name = f"Differences in {metric.label} with 95 % intervals: {compared}"
    return draw(paint, name, width=4.3, height=0.75 + LINE_HEIGHT * len(rows))


def _line(axes: Axes, y: float, left: tuple[str, str], right: tuple[str, str], size: float) -> None:
    """Words at the left edge and figures at the right one, each with its colour."""
    for x, (text, colour), side in ((0, left, "left"), (1, right, "right")):
        axes.text(x, y, text, transform=axes.get_yaxis_transform(), va="center", ha=side,
                  fontsize=size, color=colour)  # fmt: skip
