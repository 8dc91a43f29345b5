"""The plots of a run as SVG text: training curves, rounds, rewards and windows."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recalign.report.content import Round
from recalign.report.drawing import (
    CLAY,
    GREY,
    INK,
    MIST,
    MUTED,
    OCHRE,
    PAPER,
    PETROL,
    ROUND_COLOURS,
    RUST,
    SAGE,
    SAND,
    Axes,
    Paint,
    draw,
)

ALIGNMENT_PANELS = (  # title, column on the training pairs, column on the held-out pairs
    ("Loss", "loss", "held_out_loss"),
    ("Margin β h, nats", "margin", "held_out_margin"),
    ("Pairs ranked right", "accuracy", "held_out_accuracy"),
    ("Log-probability of the chosen text\nagainst the reference, nats", "chosen_drift",
     "held_out_chosen_drift"),
    ("KL to the reference, nats a token", "kl", "held_out_kl"),
    ("Reward above that of the policy\nthat wrote the samples", "reward_gain",
     "held_out_reward_gain"),
)  # fmt: skip
WINDOW_COLOURS = (MIST, SAND, CLAY, SAGE, PETROL)


def windows_picture(windows: pl.DataFrame) -> str:
    """Mean length of each window along the users' sequences; windows is the WINDOWS table.

    Where every user has one of the four behind the history (KAR's protocol), they are drawn as one.
    """
    kept = windows.filter(pl.col("prompted")) if windows["prompted"].any() else windows
    names = ["fit_start", "reward_start", "valid_start", "test_start", "end"]
    parts = ["history", "fit", "reward", "valid", "test"]
    sizes = kept.select(names).to_numpy()
    if len(sizes) > 1 and ((np.diff(sizes, axis=1) > 0).sum(1) == 1).all():
        names, parts = [names[0], names[-1]], [parts[0], "fit, reward, valid or test"]
    stops = [float(kept[name].cast(pl.Float64).mean() or 0) for name in names]  # type: ignore[arg-type]

    def paint(axes: Axes) -> None:
        start = 0.0
        for place, (name, stop) in enumerate(zip(parts, stops, strict=True)):
            axes.barh(0, stop - start, left=start, height=1, color=WINDOW_COLOURS[place])
            if stop > start:
                middle = (start + stop) / 2
                axes.text(middle, 0.72 + 0.42 * (place % 2), name, ha="center", va="bottom")
                axes.plot([middle, middle], [0.5, 0.68 + 0.42 * (place % 2)], color=GREY, lw=0.6)
                figure = f"{stop - start:.1f}".removesuffix(".0")
                colour = PAPER if name == "test" else INK
                axes.text(middle, 0, figure, ha="center", va="center", color=colour)
            start = stop
        axes.set(ylim=(-0.6, 1.7), xlim=(0, stops[-1]), xlabel="mean position in a user's sequence")
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)

    return draw(paint, "Windows: mean number of items in each", width=5.2, height=1.5)


def oracle_curves(curve: pl.DataFrame) -> list[str]:
    """Training loss and validation NDCG@10 by epoch."""
    best = curve["valid_ndcg_at_10"].arg_max()

    def loss(axes: Axes) -> None:
        axes.plot(curve["epoch"], curve["loss"], color=PETROL)
        _finish(axes, "Oracle: training loss", "epoch")

    def ndcg(axes: Axes) -> None:
        axes.plot(curve["epoch"], curve["valid_ndcg_at_10"], color=PETROL)
        if best is not None:
            _mark(axes, float(curve["epoch"][best]), float(curve["valid_ndcg_at_10"][best]), "kept")
        _finish(axes, "Oracle: NDCG@10 on validation", "epoch")

    return [draw(loss, "Oracle: training loss by epoch"), draw(ndcg, "Oracle: validation by epoch")]


def bootstrap_curve(curve: pl.DataFrame) -> str:
    """Loss of the first policy's training by step."""

    def paint(axes: Axes) -> None:
        axes.plot(curve["step"], curve["loss"], color=PETROL, lw=1.2, label="training")
        if "held_out_loss" in curve.columns:
            known = curve.drop_nulls("held_out_loss")
            axes.plot(known["step"], known["held_out_loss"], "o-", ms=3.5, color=RUST,
                      label="held out")  # fmt: skip
            axes.legend()
        _finish(axes, "First policy: loss, nats per token", "step")

    return draw(paint, "Training loss of the first policy by step")


def alignment_curves(rounds: Sequence[Round]) -> list[str]:
    """One plot per panel that any round has measured; a colour per round, named if several."""
    names = [f"round {one.number}" if len(rounds) > 1 else "training" for one in rounds]
    drawn: list[str] = []
    for title, training, held_out in ALIGNMENT_PANELS:
        lines = [
            (one.number, name, one.curve.drop_nulls(column), column, column == held_out)
            for one, name in zip(rounds, names, strict=True)
            if one.curve is not None
            for column in (training, held_out)
            if column in one.curve.columns and one.curve[column].count()
        ]
        if lines:
            name = " ".join(title.split())
            drawn.append(draw(_panel(title, lines), f"Alignment by step: {name}", 4.5, 2.6))
    return drawn


def _panel(title: str, lines: list[tuple[int, str, pl.DataFrame, str, bool]]) -> Paint:
    def paint(axes: Axes) -> None:
        for number, name, curve, column, is_held_out in lines:
            style, width, opacity = ("o-", 1.6, 1.0) if is_held_out else ("-", 0.9, 0.55)
            label = f"{name}, held out" if is_held_out else name
            colour = ROUND_COLOURS[(number - 1) % len(ROUND_COLOURS)]
            axes.plot(curve["step"], curve[column], style, ms=3.5, lw=width, alpha=opacity,
                      color=colour, label=label)  # fmt: skip
        axes.legend()
        _finish(axes, title, "step")

    return paint


def validation_by_round(rounds: Sequence[Round]) -> str:
    """Validation of the policy after each round; the kept one is marked."""
    known = [(one.number, one.valid, one.kept) for one in rounds if one.valid is not None]

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        numbers, values, _ = zip(*known, strict=True)
        axes.plot(numbers, values, "o-", color=PETROL, ms=5)
        for number, value, kept in known:
            if kept:
                _mark(axes, number, value, "kept")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xticks(numbers, ["base" if number == 0 else str(number) for number in numbers])
        axes.margins(x=0.15, y=0.25)
        _finish(axes, "NDCG on validation", "round")

    return draw(paint, "Validation NDCG by round")


def distributions(values: dict[str, np.ndarray], title: str, unit: str) -> str:
    """Histograms as outlines over shared bins, one per name; shares of each name's own count."""
    finite = {name: array[np.isfinite(array)] for name, array in values.items()}
    finite = {name: array for name, array in finite.items() if len(array)}
    joined = np.concatenate(list(finite.values()))
    bins = np.linspace(joined.min(), max(joined.max(), joined.min() + 1e-9), 33)

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import PercentFormatter

        for place, (name, array) in enumerate(finite.items()):
            colour = ROUND_COLOURS[place % len(ROUND_COLOURS)]
            shares = np.histogram(array, bins)[0] / len(array)
            axes.stairs(shares, bins, fill=True, color=colour, alpha=0.14)
            axes.stairs(
                shares, bins, color=colour, lw=1.4, label=f"{name} (mean {array.mean():.3f})"
            )
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend()
        _finish(axes, title, unit)

    return draw(paint, title)


def _mark(axes: Axes, x: float, y: float, text: str) -> None:
    axes.plot([x], [y], "o", ms=8, mfc="none", mec=OCHRE, mew=1.6)
    axes.annotate(text, (x, y), xytext=(0, -15), textcoords="offset points", ha="center",
                  color=OCHRE, fontsize=8)  # fmt: skip


def _finish(axes: Axes, title: str, xlabel: str) -> None:
    axes.set_title(title, color=INK)
    axes.set_xlabel(xlabel, color=MUTED)
    axes.tick_params(length=0)
