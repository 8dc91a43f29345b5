"""The page of a stage while it computes: how far, how long still, and its curve so far."""

import re
from collections.abc import Sequence

from recalign.report.stage_page import escape, picture
from recalign.report.wording import count, duration

WIDTH, HEIGHT, MARGIN = 560, 180, 12  # of the curve, in pixels
MOST = 400  # points drawn; of more, evenly chosen ones
FIGURE = re.compile(r"([a-zA-Z@0-9 -]*[a-zA-Z]) (-?\d[\d,]*(?:\.\d+)?)")

Point = tuple[int, float]


def figure_of(note: str) -> tuple[str, float] | None:
    """Name and value of the figure that a note of progress begins with: "loss 2.31, epoch 3"."""
    found = FIGURE.match(note)
    return (found[1], float(found[2].replace(",", ""))) if found else None


def seconds_left(done: int, total: int, since: int, seconds: float) -> float | None:
    """At the speed since `since` of `total` were done, `seconds` ago; None before it is known."""
    return (total - done) * seconds / (done - since) if done > since else None


def live_page(done: int, total: int, note: str, left: float | None, curve: Sequence[Point]) -> str:
    """Markdown of one moment; `curve` holds (done, value) of the figure that the notes tell."""
    told = f"**{100 * done // max(total, 1)} %**: {count(done)} of {count(total)}"
    if left is not None and done < total:
        told += f", about {duration(left)} left"
    parts = [told + ".", escape(note)]
    figure = figure_of(note)
    if figure and len(curve) > 1:
        parts.append(picture(curve_picture(figure[0], curve)))
    return "\n\n".join(part for part in parts if part) + "\n"


def curve_picture(name: str, curve: Sequence[Point]) -> str:
    """One line over what is done, first, lowest and last value in words: drawn in microseconds.

    A library would take longer than many a step that it tells of.
    """
    shown = [curve[place * (len(curve) - 1) // (MOST - 1)] for place in range(MOST)]
    shown = list(curve) if len(curve) <= MOST else shown
    first, last = curve[0][0], curve[-1][0]
    low, high = (pick(value for _, value in curve) for pick in (min, max))
    wide, tall = WIDTH - 2 * MARGIN, HEIGHT - 4 * MARGIN
    points = " ".join(
        f"{MARGIN + wide * (done - first) / max(last - first, 1):.1f},"
        f"{HEIGHT - MARGIN - tall * (value - low) / ((high - low) or 1):.1f}"
        for done, value in shown
    )
    told = f"{name}: {curve[0][1]:.4g} at first, {curve[-1][1]:.4g} now, lowest {low:.4g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'role="img" aria-label="{told}" style="max-width:100%">'
        f'<text x="{MARGIN}" y="{2 * MARGIN}" font-family="sans-serif" font-size="13">{told}</text>'
        f'<polyline points="{points}" fill="none" stroke="#1f6f8b" stroke-width="2"/></svg>'
    )
