"""The result table as Markdown, for places that show no HTML."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from recalign.metric_columns import Metric, cells, metrics_in
from recalign.report.wording import count, interval, metric, percent, signed


def result_table(results: pl.DataFrame, metrics: Sequence[Metric]) -> str:
    """One line per row of RESULTS; of each metric the mean, its difference to the base row and
    the 95 % interval of that difference. ValueError: a metric that the table does not have.
    """
    missing = [one.label for one in metrics if one not in metrics_in(results)]
    if missing:
        raise ValueError(f"the results have no {', '.join(missing)}")
    header = ["row", "compared with"]
    for name in metrics:
        header += [name.label, "difference", "95 % interval"]
    lines = [header, ["---", "---", *["---:"] * (3 * len(metrics))]]
    lined = cells(results)
    for row in results["row"].unique(maintain_order=True):
        base = lined[row, metrics[0]]["base"]
        line = [escape(row), escape(base or "")]
        for name in metrics:
            line += _numbers(lined[row, name])
        lines.append(line)
    n_users = count(results["n_users"].item(0))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{n_users} users; 95 % bootstrap intervals over users, paired.\n"


def escape(text: str) -> str:
    """Text that can stand in a Markdown table: no markup, no cell borders, no line breaks."""
    for character in "\\`*_{}[]<>#|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _numbers(cell: dict[str, Any]) -> list[str]:
    if cell["difference"] is None:
        return [metric(cell["mean"]), "", ""]
    relative = "" if cell["relative"] is None else f" ({percent(cell['relative'], 1, True)})"
    bounds = interval(cell["difference_low"], cell["difference_high"], with_sign=True)
    return [metric(cell["mean"]), signed(cell["difference"]) + relative, bounds]
