"""Differences to the base rows with their 95 % intervals, one line per row, around zero."""

import polars as pl
from matplotlib.axes import Axes

from recalign.metric_columns import Metric
from recalign.report.drawing import GREY, INK, MUTED, PETROL, RUST, draw
from recalign.report.wording import RANKED, shown, signed

LINE_HEIGHT = 0.47  # inches per row: its label stands above its interval, so that a phone fits


def forest(results: pl.DataFrame, metric: Metric) -> str | None:
    """Forest plot of one metric of the RESULTS table; None when no row has a difference.

    Popularity is left to the table: so far off, it would set the scale for all others.
    """
    measured = metric.lines(results).filter(pl.col("recommender") != "popularity")
    rows = measured.drop_nulls("difference").to_dicts()
    if not rows:
        return None

    def paint(axes: Axes) -> None:
        reach = max(max(abs(row["difference_low"]), abs(row["difference_high"])) for row in rows)
        for place, row in enumerate(rows):
            colour = colour_of(row["difference_low"], row["difference_high"])
            y = -place
            axes.plot([row["difference_low"], row["difference_high"]], [y, y], color=colour, lw=2.2,
                      solid_capstyle="round")  # fmt: skip
            face = "white" if colour == GREY else colour
            axes.plot([row["difference"]], [y], "o", ms=5.5, mfc=face, mec=colour, mew=1.5)
            axes.text(0, y + 0.34, row["row"], transform=axes.get_yaxis_transform(), va="center",
                      ha="left", fontsize=8.5)  # fmt: skip
            axes.text(1, y + 0.34, signed(row["difference"]), va="center", ha="right", fontsize=8.5,
                      color=INK if colour == GREY else colour,
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.axvline(0, color=MUTED, lw=0.9, zorder=0)
        axes.set(ylim=(-len(rows) + 0.5, 0.75), xlim=(-1.08 * reach, 1.08 * reach))
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"Difference in {metric.name}, {RANKED[metric.lists].lower()}", color=INK)
        axes.locator_params(axis="x", nbins=5)

    height = 0.8 + LINE_HEIGHT * len(rows)
    return draw(
        paint, f"Differences in {metric.label} with 95 % intervals", width=4.5, height=height
    )


def colour_of(low: float, high: float) -> str:
    """Petrol above zero, rust below, grey where the printed interval holds or touches zero."""
    if shown(low) > 0:
        return PETROL
    return RUST if shown(high) < 0 else GREY
