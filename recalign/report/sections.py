"""The sections that the pages of both methods have: results, training, what went in."""

import polars as pl

from recalign.metric_columns import FEWEST_USERS, Metric, metrics_in
from recalign.report import plots
from recalign.report.content import Card, Cell, DataSet, Figure, Grid, Section
from recalign.report.forest import forest
from recalign.report.result_lines import (
    difference_cell,
    every_result,
    headline_metrics,
    mean_cell,
    recommended_grid,
    result_grid,
)
from recalign.report.wording import RANKED, count, plural, reasons
from recalign.schemas import RECOMMENDED, RESULTS, SEGMENTS, WINDOWS, check_table

FEW_USERS = 100  # below, an interval of a mean is wider than most effects
CUT_BY = (
    "Users are cut into parts of equal size, but for ties, by what stands before their test "
    "window: taste, how popular the items of the history are on average; history, how many they "
    "are; targets, how popular the items to be foreseen are; and, where all users are cut at the "
    "same moments, the time at which the user's test begins. Popularity is counted in history "
    "windows."
)
CUT_ALWAYS = ("taste", "history", "targets")
HOLLOW = "A hollow dot: the interval holds zero, so no difference is shown."


def results_section(
    results: pl.DataFrame,
    primary: Metric,
    recommended: pl.DataFrame | None = None,
    budgets: pl.DataFrame | None = None,
) -> Section:
    """RESULTS by what was ranked, each with its forest plot; RECOMMENDED; and every line.

    BUDGETS are columns of the main tables.

    BadInputError: a table lacks a column of its schema.
    """
    check_table(results, RESULTS, "results")
    ranked = [headline_metrics(results, primary, lists) for lists in RANKED]
    grids = [result_grid(results, metrics, budgets) for metrics in ranked if metrics]
    drawn = [(metrics[0].lists, forest(results, metrics[0])) for metrics in ranked if metrics]
    if recommended is not None:
        grids.append(recommended_grid(check_table(recommended, RECOMMENDED, "recommended")))
    return Section(
        "Results on the test window",
        "Results",
        f"{count(max(results['n_users'].to_list()))} users. Figures are means over users; below "
        "each stands its 95 % interval (bootstrap over users). Differences are paired by user. "
        "Blue is better, rust is worse; grey: no difference is shown.",
        grids=grids,
        figures=[Figure(svg, f"{RANKED[lists]}. {HOLLOW}") for lists, svg in drawn if svg],
        folded=every_result(results),
    )


def segments_section(segments: pl.DataFrame) -> Section:
    """SEGMENTS of some rows: a line per segment, each row beside how far it is from its base.

    BadInputError: a table lacks a column of its schema.
    """
    table = check_table(segments, SEGMENTS, "segments")
    compared = table.select("row", "base").unique(maintain_order=True).rows()
    header = [name for row, base in compared for name in (row, f"against {base}")]
    rows = []
    for (kind, segment), part in table.group_by("kind", "segment", maintain_order=True):
        lines = {(line["row"], line["base"]): line for line in part.to_dicts()}
        users = f"{count(part['n_users'][0])} users by {kind}"
        told = [show(lines[one]) for one in compared for show in (mean_cell, difference_cell)]
        rows.append([Cell(str(segment), users), *told])
    alike = [kind for kind in CUT_ALWAYS if kind not in table["kind"]]
    left_out = f" Not cut by {' or '.join(alike)}, in which all users are alike." if alike else ""
    if table.is_empty():
        return Section("Who gains", "Segments", CUT_BY + left_out)
    measured = metrics_in(table)[0]
    note = (
        f"{measured.name}, {RANKED[measured.lists].lower()}. {CUT_BY}{left_out} That one "
        "segment shows a difference and another does not is no difference between the two. Of "
        f"fewer than {FEWEST_USERS} users no interval is told."
    )
    return Section("Who gains", "Segments", note, grids=[Grid(["Users", *header], rows)])


def training_section(
    oracle: pl.DataFrame | None, policy: pl.DataFrame | None, whose: str
) -> list[Section]:
    """Curves of what is trained before any alignment; no section without a curve.

    oracle: columns epoch, loss, valid_ndcg_at_10; policy: columns step and loss, and
    held_out_loss if measured (nats per token); `whose` names the policy.
    """
    drawn = plots.oracle_curves(oracle) if oracle is not None else []
    drawn += [plots.bootstrap_curve(policy)] if policy is not None else []
    title = f"Training of the recommender and of {whose}"
    return [Section(title, "Training", figures=[Figure(svg) for svg in drawn])] if drawn else []


def data_section(data: DataSet) -> Section:
    """Sizes of the data set, what was left out, and the windows."""
    figures = []
    if data.windows is not None:
        windows = plots.windows_picture(check_table(data.windows, WINDOWS, "windows"))
        figures.append(Figure(windows, "A stage sees only what lies before its own window."))
    sizes = {
        "Users": data.n_users, "Items": data.n_items, "Interactions": data.n_interactions,
        "Test users": data.n_test_users,
    }  # fmt: skip
    told = [f"Data set {data.name}", f"Left out: {reasons(data.dropped) or 'nothing'}"]
    return Section(
        "What went in",
        "Data",
        "".join(f"{one[0].upper()}{one[1:]}. " for one in [*told, *data.remarks]).strip(),
        cards=[Card(name, count(size)) for name, size in sizes.items() if size is not None],
        figures=figures,
    )


def with_data(data: DataSet) -> str:
    """How a sentence about a run begins: what went in, after a warning if few users are tested."""
    n = data.n_test_users
    few = (
        f"Only {plural(n, 'user')} to test on: no figure is exact. " if n and n < FEW_USERS else ""
    )
    return (
        f"{few}With {plural(data.n_interactions, 'interaction')} of {plural(data.n_users, 'user')} "
        f"and {plural(data.n_items, 'item')} ({data.name})"
    )
