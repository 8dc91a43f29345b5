"""RosePO's parts of the page: its claims one by one, the trade-off, the pairs and their doubt."""

from collections.abc import Mapping, Sequence

import polars as pl

from recalign.config import ComparedRow
from recalign.metric_columns import CATALOGUE, NDCG_AT_10, STARTS, Metric, cells, metrics_in
from recalign.report.content import Cell, DataSet, Figure, Grid, Section
from recalign.report.forest import colour_of
from recalign.report.summary import verdict, with_data
from recalign.report.tradeoff import tradeoff
from recalign.report.wording import interval, metric, percent, plural, signed

HELPFUL = Metric("uniform", "HR", 1)
LIFT = Metric(CATALOGUE, "popularity lift")
HARMFUL = (LIFT, Metric("uniform", "semantic hallucination"))
SHOWN = (HELPFUL, Metric("popularity", "HR", 1), NDCG_AT_10, LIFT)
"""Metrics of the claims: RosePO's own protocol, its harder lists, the full catalogue, and harm."""
TERMS = (
    "Candidate lists hold the item that was taken next among drawn others, and HR@1 is how often "
    "it comes first; eps is the doubt whether a rejected item is really the worse one; SFT "
    "continued is the SFT model fine-tuned further on the chosen items alone; popularity lift is "
    "how much more popular what is recommended is than what was taken (mean log, 0: equally)."
)


def rosepo_sections(
    compared: Sequence[ComparedRow],
    results: pl.DataFrame,
    contrasts: pl.DataFrame,
    validation: Mapping[str, float],
    rejections: pl.DataFrame,
    smoothing: pl.DataFrame,
) -> list[Section]:
    """What the page says beyond the result table.

    results: RESULTS; contrasts: RESULTS with `question`; validation: score by row label;
    rejections and smoothing: one line per set of pairs, printed as they are.
    """
    plots = [(one, tradeoff(results, HELPFUL, one)) for one in HARMFUL]
    figures = [Figure(svg, f"{HELPFUL.name} against {one.label}.") for one, svg in plots if svg]
    return [
        _claims(contrasts),
        Section(
            "Helpful against harmless",
            "Trade-off",
            "Up is more helpful. Right is more of what should be avoided.",
            figures=figures,
            grids=[_biases(results)],
        ),
        Section(
            "Chosen by validation",
            "Validation",
            "A policy is worth delivering only if its validation beats the SFT model's.",
            grids=[_validations(compared, validation)],
        ),
        Section("The pairs", "Pairs", grids=[_plain_grid(rejections)]),
        Section("The doubt", "Smoothing", grids=[_plain_grid(smoothing)]),
    ]


def rosepo_title(compared: Sequence[ComparedRow], source: str) -> str:
    """Title of the page; it is a grid's where several strategies were aligned with eps."""
    doubted = {one.strategy for one in compared if one.estimator not in ("", "none")}
    return f"RosePO{' grid' if len(doubted) > 1 else ''} on {source}"


def rosepo_sentences(
    compared: Sequence[ComparedRow],
    data: DataSet,
    contrasts: pl.DataFrame,
    n_pairs: Mapping[str, int],
) -> list[str]:
    """What was run, the terms, and each question with its answers in the headline metric.

    n_pairs: chosen items with something rejected for each, by strategy.
    """
    told = HELPFUL.lines(contrasts)
    n_aligned = sum(one.kind == "aligned" for one in compared)
    sets = ", ".join(f"{plural(n, 'pair')} {strategy}" for strategy, n in n_pairs.items())
    sentences = [
        f"{with_data(data)} a fine-tuned language model (SFT) was aligned in "
        f"{plural(n_aligned, 'way')} on pairs of the item taken and items rejected for it "
        f"({sets}), and {plural(len(compared), 'row')} are compared.",
        TERMS,
    ]
    for question in told["question"].unique(maintain_order=True):
        answers = [
            f"{one['row']} {signed(one['difference'])} "
            f"{interval(one['difference_low'], one['difference_high'], with_sign=True)} "
            f"({verdict(one['difference_low'], one['difference_high'])})"
            for one in told.filter(pl.col("question") == question).iter_rows(named=True)
        ]
        sentences.append(f"{question} In HR@1 of the candidate lists: {'; '.join(answers)}.")
    return sentences


def _claims(contrasts: pl.DataFrame) -> Section:
    names = [one for one in SHOWN if one in metrics_in(contrasts)]
    grids = []
    for question in contrasts["question"].unique(maintain_order=True):
        asked = contrasts.filter(pl.col("question") == question)
        lined = cells(asked)
        rows = []
        for label in asked["row"].unique(maintain_order=True):
            base = lined[label, names[0]]["base"]
            name = Cell(f"{label}", f"against {base}")
            rows.append([name, *(_difference(lined[label, one]) for one in names)])
        header = ["Row", *(_header(one) for one in names)]
        grids.append(Grid(header, rows, question))
    note = "Differences paired by user, with 95 % intervals over users; more lift is more harm."
    return Section("Claim by claim", "Claims", note, grids=grids)


def _header(one: Metric) -> str:
    ranked = STARTS[one.lists].strip()
    return f"{one.name} ({ranked})" if ranked else one.name


def _difference(cell: Mapping[str, float]) -> Cell:
    low, high = cell["difference_low"], cell["difference_high"]
    text = signed(cell["difference"])
    return Cell(text, interval(low, high, with_sign=True), colour_of(low, high))


def _biases(results: pl.DataFrame) -> Grid:
    """Every measure that is not a ranking metric, by row."""
    names = [
        one
        for one in metrics_in(results)
        if one.lists == CATALOGUE and one.k is None and one.measure != "MRR"
    ]
    lined = cells(results)
    rows = [
        [Cell(label), *(_mean(lined.get((label, name))) for name in names)]
        for label in results["row"].unique(maintain_order=True)
    ]
    return Grid(["Row", *(one.name for one in names)], rows)


def _mean(cell: Mapping[str, float] | None) -> Cell:
    return (
        Cell("–")
        if cell is None
        else Cell(metric(cell["mean"]), interval(cell["low"], cell["high"]))
    )


def _validations(compared: Sequence[ComparedRow], validation: Mapping[str, float]) -> Grid:
    base = next((validation[one.label] for one in compared if one.kind == "sft"), None)
    rows = []
    for one in compared:
        score = validation[one.label]
        gain = "" if base is None or one.kind == "sft" else percent(score / base - 1, 1, True)
        rows.append([Cell(one.label), Cell(metric(score)), Cell(gain)])
    return Grid(["Row", "Validation NDCG@10", "against SFT"], rows)


def _plain_grid(table: pl.DataFrame) -> Grid:
    """Any table, numbers with four decimals where they are not whole."""
    rows = [[Cell(_said(value)) for value in row] for row in table.iter_rows()]
    return Grid([name.replace("_", " ") for name in table.columns], rows)


def _said(value: object) -> str:
    if value is None:
        return "–"
    return metric(value) if isinstance(value, float) else str(value)
