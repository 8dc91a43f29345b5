"""Helpfulness against harm: each row's hit rate over a bias it should not have, with intervals."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from recalign.config import ComparedRow
from recalign.report.drawing import GREY, INK, ROUND_COLOURS, draw
from recalign.report.wording import plain

MARKERS = {
    "none": "o", "pairwise": "D", "softmax": "s", "constant": "v", "permuted": "x", "truth": "*",
}  # fmt: skip


def tradeoff(
    compared: Sequence[ComparedRow], results: pl.DataFrame, helpful: str, harmful: str
) -> str | None:
    """One point per row of RESULTS with crosshairs of 95 %; None unless both were measured.

    Colours are strategies, markers smoothings, black the baselines. Popularity is left out: so far
    off, it would set the scale for all others.
    """
    cells = {(one["row"], one["metric"]): one for one in results.iter_rows(named=True)}
    shown = [
        (one, cells[one.label, harmful], cells[one.label, helpful])
        for one in compared
        if one.kind != "popularity" and {(one.label, harmful), (one.label, helpful)} <= set(cells)
    ]
    if len(shown) < 2:
        return None
    strategies = list(dict.fromkeys(one.strategy for one in compared if one.strategy))
    colours = dict(zip(strategies, ROUND_COLOURS * len(strategies), strict=False))

    def paint(axes: Axes) -> None:
        for one, x, y in shown:
            colour = colours.get(one.strategy, INK)
            axes.plot([x["low"], x["high"]], [y["mean"]] * 2, color=colour, lw=0.7, alpha=0.45)
            axes.plot([x["mean"]] * 2, [y["low"], y["high"]], color=colour, lw=0.7, alpha=0.45)
            marker = MARKERS.get(one.estimator, "o")
            axes.plot([x["mean"]], [y["mean"]], marker, ms=6, color=colour)
            if not one.strategy:
                below = one.kind == "continued"  # it often lies on the SFT model it continues
                axes.annotate(one.label, (x["mean"], y["mean"]), fontsize=8,
                              xytext=(6, -4 if below else 4), va="top" if below else "bottom",
                              textcoords="offset points")  # fmt: skip
        for strategy, colour in colours.items():
            axes.plot([], [], "s", color=colour, ms=5, label=strategy)
        for estimator in dict.fromkeys(one.estimator for one, _, _ in shown if one.estimator):
            axes.plot([], [], MARKERS[estimator], color=GREY, ms=5, label=f"eps: {estimator}")
        axes.legend(fontsize=7, ncols=2)
        axes.margins(0.12)
        axes.set(xlabel=plain(harmful), ylabel=plain(helpful))

    return draw(paint, f"{helpful} against {harmful}", width=5.4, height=4.0)
