"""The history of a series of rounds as rows and sentences, for the terminal and Prefect's UI."""

from recalign.artifacts.series import Series


def standing(series: Series) -> str:
    """Where the series stands, in a sentence."""
    latest = series.latest
    if latest is None:
        return f"series {series.name} has no round yet"
    last, best, base = latest.rounds[-1], latest.best, latest.rounds[0]
    count = len(series.generations)
    state = f" goes on after round {last.number}" + f" of generation {count}" * (count > 1)
    if latest.ended:  # a clause that may be long, and end with other words than a round
        state = f", generation {count}," * (count > 1) + f" {latest.ended}"
    return (
        f"series {series.name}{state}; best round {best.number}, "
        f"validation {best.validation:.4f} (base {base.validation:.4f})"
    )


def history(series: Series) -> list[dict[str, str]]:
    """A row per round, oldest first; `kept` marks the best round of each generation."""
    rows = []
    for number, generation in enumerate(series.generations, start=1):
        before = None
        for made in generation.rounds:
            change = "" if before is None else f"{made.validation - before:+.4f}"
            rows.append(
                {
                    "generation": str(number),
                    "round": str(made.number) if made.number else "base",
                    "validation": f"{made.validation:.4f}",
                    "change": change,
                    "best": "best" if made is generation.best else "",
                    "policy": made.alignment.name if made.alignment else "",
                    "finished": f"{made.finished:%Y-%m-%d %H:%M:%S}",
                    "run": made.run[:8],
                }
            )
            before = made.validation
    return rows


def beginnings(series: Series) -> list[str]:
    """A line per generation: when and why it began."""
    return [
        f"generation {number} began {generation.began:%Y-%m-%d %H:%M:%S} UTC: {generation.reason}"
        for number, generation in enumerate(series.generations, start=1)
    ]
