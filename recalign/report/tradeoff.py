"""Helpfulness against harm: each row's hit rate over a bias it should not have, with intervals."""

import polars as pl

from recalign.metric_columns import Metric, cells
from recalign.report.drawing import GREY, INK, ROUND_COLOURS, Axes, draw

MARKERS = {
    "none": "o", "pairwise": "D", "softmax": "s", "constant": "v", "permuted": "x", "truth": "*",
}  # fmt: skip


def tradeoff(results: pl.DataFrame, helpful: Metric, harmful: Metric) -> str | None:
    """One point per row of RESULTS with crosshairs of 95 %; None unless both were measured.

    Colours are strategies, markers smoothings, black the baselines. Popularity is left out: so far
    off, it would set the scale for all others.
    """
    told = results.drop_nulls("low")  # too few users for an interval
    lined = cells(told.filter(pl.col("recommender") != "popularity"))
    shown = [
        (lined[row, harmful], y)
        for (row, metric), y in lined.items()
        if metric == helpful and (row, harmful) in lined
    ]
    if len(shown) < 2:
        return None
    strategies = list(dict.fromkeys(y["strategy"] for _, y in shown if y["strategy"]))
    colours = dict(zip(strategies, ROUND_COLOURS * len(strategies), strict=False))

    def paint(axes: Axes) -> None:
        for x, y in shown:
            colour = colours.get(y["strategy"], INK)
            axes.plot([x["low"], x["high"]], [y["mean"]] * 2, color=colour, lw=0.7, alpha=0.45)
            axes.plot([x["mean"]] * 2, [y["low"], y["high"]], color=colour, lw=0.7, alpha=0.45)
            marker = MARKERS.get(y["estimator"], "o")
            axes.plot([x["mean"]], [y["mean"]], marker, ms=6, color=colour)
            if not y["strategy"]:
                below = y["policy"] == "continued"  # it often lies on the SFT model it continues
                axes.annotate(y["row"], (x["mean"], y["mean"]), fontsize=8,
                              xytext=(6, -4 if below else 4), va="top" if below else "bottom",
                              textcoords="offset points")  # fmt: skip
        for strategy, colour in colours.items():
            axes.plot([], [], "s", color=colour, ms=5, label=strategy)
        for estimator in dict.fromkeys(y["estimator"] for _, y in shown if y["estimator"]):
            axes.plot([], [], MARKERS[estimator], color=GREY, ms=5, label=f"eps: {estimator}")
        axes.legend(fontsize=7, ncols=2)
        axes.margins(0.12)
        axes.set(xlabel=harmful.name, ylabel=helpful.name)

    return draw(paint, f"{helpful.label} against {harmful.label}", width=5.2, height=3.9)
