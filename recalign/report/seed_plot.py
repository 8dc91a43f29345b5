"""A metric against the settings of a sweep: the mean with its interval, and a point per seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from recalign.report.drawing import GREY, INK, MUTED, PAPER, PETROL, Axes, draw
from recalign.report.wording import TOO_FEW, interval, metric, signed

BESIDE = 0.1  # inches from a setting's mean to its seeds' points
LINE_HEIGHT = 0.72  # inches per setting: its name and its figures stand above its interval
WIDE = 20  # a setting whose largest value is so many times its smallest has an axis of logarithms


@dataclass(frozen=True)
class Spot:
    """One setting in one figure."""

    setting: str
    mean: float
    low: float | None
    """Of the interval; None: not told."""
    high: float | None
    per_seed: Sequence[float]
    at: float | None = None
    """Its place on an axis of numbers; None: settings have no such order."""


def setting_plot(spots: Sequence[Spot], title: str, axis: str = "", differs: bool = False) -> str:
    """The picture; `axis` names the numbers that settings lie at, `differs` marks a difference."""
    along = axis and len(spots) > 1 and all(one.at is not None for one in spots)
    description = f"{title}, by setting, with a point per training seed"
    if along:
        return draw(lambda axes: _along(axes, spots, title, axis, differs), description, 4.6, 3.0)
    height = 0.75 + LINE_HEIGHT * len(spots)
    return draw(lambda axes: _beside(axes, spots, title, differs), description, 4.6, height)


def _along(axes: Axes, spots: Sequence[Spot], title: str, axis: str, differs: bool) -> None:
    from matplotlib.transforms import ScaledTranslation

    scale = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    ordered = sorted(spots, key=lambda one: one.at or 0.0)
    places = [one.at or 0.0 for one in ordered]
    axes.plot(places, [one.mean for one in ordered], color=PETROL, lw=1)
    for one, x in zip(ordered, places, strict=True):
        if one.low is not None and one.high is not None:
            axes.plot([x, x], [one.low, one.high], color=PETROL, lw=2.2, solid_capstyle="round")
        axes.plot([x] * len(one.per_seed), one.per_seed, "o", ms=4, mfc=PAPER, mec=GREY, mew=1,
                  transform=axes.transData + ScaledTranslation(BESIDE, 0, scale))  # fmt: skip
        axes.plot([x], [one.mean], "o", ms=6, color=PETROL)
    if min(places) > 0 and max(places) / min(places) >= WIDE:
        axes.set_xscale("log")
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.minorticks_off()
    if differs:
        axes.axhline(0, color=MUTED, lw=0.9, zorder=0)
    axes.margins(x=0.1, y=0.12)
    axes.set_title(title, color=INK)
    axes.set_xlabel(axis, color=MUTED)
    axes.tick_params(length=0)


def _beside(axes: Axes, spots: Sequence[Spot], title: str, differs: bool) -> None:
    show = signed if differs else metric
    for place, one in enumerate(spots):
        y = -place - 0.1
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [y, y], color=PETROL, lw=2.2, solid_capstyle="round")
        lower = [y - 0.16] * len(one.per_seed)
        axes.plot(one.per_seed, lower, "o", ms=4, mfc=PAPER, mec=GREY, mew=1)
        axes.plot([one.mean], [y], "o", ms=6, color=PETROL)
        told = f"{show(one.mean)} {interval(one.low, one.high, with_sign=differs) or TOO_FEW}"
        for x, above, text, colour in ((0, 0.5, one.setting, INK), (1, 0.27, told, MUTED)):
            axes.text(x, y + above, text, transform=axes.get_yaxis_transform(), va="center",
                      ha="right" if x else "left", fontsize=8, color=colour)  # fmt: skip
    axes.set(ylim=(-len(spots) + 0.55, 0.65))
    axes.margins(x=0.08)
    axes.set_yticks([])
    if differs:
        axes.axvline(0, color=MUTED, lw=0.9, zorder=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(title, color=INK)
    axes.tick_params(length=0)
    axes.locator_params(axis="x", nbins=5)
