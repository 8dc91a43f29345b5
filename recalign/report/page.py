"""Write the report: one HTML file with its styles and pictures inside, no request to anywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recalign.report import plots, tables, wording
from recalign.report.content import ReportContent, Round
from recalign.report.forest import forest
from recalign.report.lineage import lineage_graph
from recalign.report.summary import summary
from recalign.schemas import FACETS, RECOMMENDED, RESULTS, TEXTS, WINDOWS, check_table


def write_report(content: ReportContent, path: Path) -> Path:
    """Write the page to `path` and return it; equal content gives equal bytes.

    BadInputError: a table of the content lacks a column of its schema.
    """
    path.write_text(render(content), encoding="utf-8")
    return path


def render(content: ReportContent) -> str:
    """The page as HTML; all text of the content is escaped."""
    _check(content)
    environment = Environment(
        loader=PackageLoader("recalign.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": wording.metric, "percent": wording.percent, "count": wording.count,
        "duration": wording.duration, "reasons": wording.reasons,
    }  # fmt: skip
    template = environment.get_template("template.html")
    return template.render(
        content=content,
        sentences=summary(content) if content.sentences is None else content.sentences,
        results=_results(content),
        pictures=_pictures(content),
        tables=tables,
        facets=tables.facet_table(content.facets) if content.facets is not None else None,
        packages=tables.shared_packages(content.stages),
    )


def _check(content: ReportContent) -> None:
    checked: list[tuple[pl.DataFrame | None, Any, str]] = [
        (content.results, RESULTS, "results"),
        (content.recommended, RECOMMENDED, "recommended"),
        (content.texts, TEXTS, "texts"),
        (content.facets, FACETS, "facets"),
        (content.data.windows if content.data else None, WINDOWS, "windows"),
    ]
    for table, schema, name in checked:
        if table is not None:
            check_table(table, schema, name)


def _results(content: ReportContent) -> dict[str, Any] | None:
    """Tables of the test by kind of ranking, forest plots, and every line."""
    if content.results is None or content.results.is_empty():
        return None
    kinds = []
    for lists, title in wording.RANKED.items():
        metrics = tables.headline_metrics(content.results, content.primary, lists)
        if metrics:
            table = tables.result_table(content.results, metrics[0], metrics[1:])
            plot = forest(content.results, table.primary)
            kinds.append({"title": title, "table": table, "forest": _inline(plot)})
    return {"kinds": kinds, "every": tables.every_result(content.results),
            "n_users": content.results["n_users"].max()}  # fmt: skip


def _pictures(content: ReportContent) -> dict[str, Any]:
    """All other plots, as markup; an empty list or None where there is nothing to draw."""
    aligned = [one for one in content.rounds if one.number > 0]
    validated = [one for one in content.rounds if one.valid is not None]
    windows = content.data.windows if content.data else None
    oracle, bootstrap = content.oracle_curve, content.bootstrap_curve
    return {
        "windows": _inline(plots.windows_picture(windows)) if windows is not None else None,
        "oracle": _inlined(plots.oracle_curves(oracle)) if oracle is not None else [],
        "bootstrap": _inline(plots.bootstrap_curve(bootstrap)) if bootstrap is not None else None,
        "alignment": _inlined(plots.alignment_curves(aligned)),
        "validation": _inline(plots.validation_by_round(validated)) if len(validated) > 1 else None,
        "distributions": _inlined(_distributions(aligned)),
        "lineage": _inline(lineage_graph(content.stages)),
    }


def _distributions(rounds: Sequence[Round]) -> list[str]:
    drawn = []
    for title, arrays in (
        ("Rewards of all samples", {f"round {one.number}": one.rewards for one in rounds}),
        ("Margins of the pairs", {f"round {one.number}": one.margins for one in rounds}),
    ):
        known = {name: array for name, array in arrays.items() if array is not None and len(array)}
        if known:
            drawn.append(plots.distributions(known, title, "NDCG"))
    return drawn


def _inlined(pictures: Sequence[str]) -> list[Markup]:
    return [Markup(svg) for svg in pictures]


def _inline(svg: str | None) -> Markup | None:
    """Pictures are made here from escaped text, so they may stand in the page as they are."""
    return None if svg is None else Markup(svg)
