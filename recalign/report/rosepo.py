"""RosePO's page: its claims one by one, the trade-off, the pairs and how sure eps is of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from recalign.config import ComparedRow
from recalign.metric_columns import (
    CATALOGUE,
    FEWEST_USERS,
    MEASURES,
    STARTS,
    Metric,
    cells,
    metrics_in,
    told_intervals,
    validated_by,
)
from recalign.report.content import Cell, DataSet, Figure, Grid, Page, Section, StageRun
from recalign.report.result_lines import Line, difference_cell, mean_cell
from recalign.report.rosepo_opening import HELPFUL, LIFT, SHOWN, opening
from recalign.report.sections import (
    data_section,
    results_section,
    segments_section,
    training_section,
)
from recalign.report.tradeoff import tradeoff
from recalign.report.wording import TOO_FEW, count, interval, metric, percent, signed
from recalign.schemas import HINDSIGHT, check_table

HARMFUL = (LIFT, Metric("uniform", "semantic hallucination"))


BEAM = (
    "LLMs found the best {} titles of the catalogue by beam search, which can miss titles; "
    "the others ranked all: what is measured on the catalogue is no exact comparison of both."
)


@dataclass(frozen=True)
class RosePORun:
    """What a run of RosePO has to show; tables have the schemas of `recalign.schemas`."""

    source: str
    created: str
    """Time of the run, as it should be printed."""
    compared: Sequence[ComparedRow]
    results: pl.DataFrame
    """RESULTS of the test."""
    contrasts: pl.DataFrame
    """RESULTS with `question`: each claim against its control."""
    segments: pl.DataFrame
    """SEGMENTS of the test users: rows against SFT, and the answers to the first question."""
    recommended: pl.DataFrame
    """RECOMMENDED: what the heads of the lists hold."""
    budgets: pl.DataFrame
    """BUDGETS: what each row was trained on."""
    unequal: Sequence[str]
    """Rows of a claim whose pairs or steps differ, in words."""
    validation: Mapping[str, float]
    """Score by row label, in the metric that `validated_by` says of the results; may be empty."""
    beam: int
    """Titles of the catalogue that LLMs found by beam search; 0: they scored all."""
    rejections: pl.DataFrame
    """One line per set of pairs, printed as it is."""
    smoothing: pl.DataFrame
    """The same of every eps."""
    hindsight: pl.DataFrame
    """HINDSIGHT: eps against what users took later."""
    n_pairs: Mapping[str, int]
    """Chosen items with something rejected for each, by strategy."""
    data: DataSet
    stages: Sequence[StageRun]
    oracle_curve: pl.DataFrame
    """Columns epoch, loss, valid_ndcg_at_10."""
    sft_curve: pl.DataFrame
    """Columns step and loss, and held_out_loss if measured (nats per token)."""


def rosepo_page(run: RosePORun) -> Page:
    """Results, claims and trade-off, training, pairs and eps, what went in."""
    results, contrasts = told_intervals(run.results), told_intervals(run.contrasts)
    main = results_section(results, HELPFUL._replace(lists=CATALOGUE), run.recommended, run.budgets)
    if run.beam:
        main = replace(main, note=f"{main.note} {BEAM.format(run.beam)}")
    sections = [
        main,
        _claims(contrasts, run.unequal),
        segments_section(_first_answers(told_intervals(run.segments), contrasts)),
        _tradeoffs(results),
        *_chosen(run),
        *training_section(run.oracle_curve, run.sft_curve, "the fine-tuned model"),
        Section("Items chosen and rejected", "Pairs", grids=[_plain_grid(run.rejections)]),
        Section(
            "How sure the oracle is that a rejected item is really preferred (eps)",
            "eps",
            grids=[_plain_grid(run.smoothing), *_in_hindsight(run.hindsight)],
        ),
        data_section(run.data),
    ]
    first = opening(contrasts, run.data, run.n_pairs)
    return Page(f"RosePO on {run.source}", run.created, first, sections, run.stages)


def _claims(contrasts: pl.DataFrame, unequal: Sequence[str]) -> Section:
    names = [one for one in SHOWN if one in metrics_in(contrasts)]
    grids = []
    for question in contrasts["question"].unique(maintain_order=True):
        asked = contrasts.filter(pl.col("question") == question)
        lined = cells(asked)
        rows = []
        for label in asked["row"].unique(maintain_order=True):
            name = Cell(label, f"against {lined[label, names[0]]['base']}")
            rows.append([name, *(difference_cell(lined[label, one]) for one in names)])
        grids.append(Grid(["Row", *(_header(one) for one in names)], rows, question))
    note = (
        "Differences paired by user, with 95 % intervals over users; more lift above 0 is more "
        "harm."
    )
    if unequal:
        note += f" Not an equal budget: {'; '.join(unequal)}."
    return Section("Claim by claim", "Claims", note, grids=grids)


def _first_answers(segments: pl.DataFrame, contrasts: pl.DataFrame) -> pl.DataFrame:
    """SEGMENTS of the answers to the first question, and of the rows they are compared with."""
    first = contrasts.filter(pl.col("question") == pl.col("question").first())
    answers = first.select("row", "base").unique()
    compared = pl.col("base").is_not_null() & pl.col("row").is_in(answers["base"].implode())
    return pl.concat(
        [segments.join(answers, on=["row", "base"], how="semi"), segments.filter(compared)]
    )


def _header(one: Metric) -> str:
    ranked = STARTS[one.lists].strip()
    return f"{one.name} ({ranked})" if ranked else one.name


def _tradeoffs(results: pl.DataFrame) -> Section:
    plots = [(one, tradeoff(results, HELPFUL, one)) for one in HARMFUL]
    figures = [Figure(svg, f"{HELPFUL.name} against {one.label}.") for one, svg in plots if svg]
    note = (
        "Up is more helpful. Right is more of what should be avoided; of popularity lift only "
        "above 0."
    )
    return Section(
        "Helpful against harmless", "Trade-off", note, grids=[_biases(results)], figures=figures
    )


def _biases(results: pl.DataFrame) -> Grid:
    """Every measure that is not a ranking metric, by row."""
    names = [
        one
        for one in metrics_in(results)
        if one.lists == CATALOGUE and one.k is None and one.measure != "MRR"
    ]
    lined = cells(results)
    rows = [
        [Cell(label), *(mean_cell(lined.get((label, name))) for name in names)]
        for label in results["row"].unique(maintain_order=True)
    ]
    measures = dict.fromkeys(one.measure for one in names)
    note = ". ".join(f"{name.capitalize()}: {MEASURES[name]}" for name in measures)
    return Grid(["Row", *(one.name for one in names)], rows, note=f"{note}." if note else "")


def _chosen(run: RosePORun) -> list[Section]:
    """What to choose a row by; nothing where rows were judged on test alone."""
    if not run.validation:
        return []
    base = next((run.validation[one.label] for one in run.compared if one.kind == "sft"), None)
    rows = []
    for one in run.compared:
        score = run.validation[one.label]
        gain = "" if not base or one.kind == "sft" else percent(score / base - 1, 1, True)
        rows.append([Cell(one.label), Cell(metric(score)), Cell(gain)])
    header = ["Row", f"Validation {_header(validated_by(run.results))}", "against SFT"]
    told = "A policy is worth delivering only if its validation beats the SFT model's."
    return [Section("Chosen by validation", "Validation", told, grids=[Grid(header, rows)])]


def _in_hindsight(hindsight: pl.DataFrame) -> list[Grid]:
    """How well each eps foretold what users took later; none where no eps varies."""
    lines = told_intervals(check_table(hindsight, HINDSIGHT, "hindsight")).to_dicts()
    if not lines:
        return []
    rows = [
        [
            Cell(line["pairs"]), Cell(count(line["rejected"])), Cell(count(line["n_users"])),
            Cell(percent(line["taken_later"])),
            Cell(metric(line["auc"]), _bounds(line, "auc")),
            Cell(metric(line["auc_popularity"])),
            Cell(signed(line["correlation"]), _bounds(line, "correlation", with_sign=True)),
        ]
        for line in lines
    ]  # fmt: skip
    header = ["Pairs", "Rejected", "Users", "Taken later", "AUC of eps", "AUC of popularity",
              "Correlation with eps"]  # fmt: skip
    note = (
        "Whether the user took a rejected item after all, at any time after the pair. AUC: how "
        "often eps is larger for an item that was taken later than for one that was not (0.5: it "
        "tells nothing); popularity is what counting in the history windows reaches. 95 % "
        "intervals over users. Nothing is chosen by this: it reads the test window."
    )
    return [Grid(header, rows, "eps against what users took later", note)]


def _bounds(line: Line, name: str, with_sign: bool = False) -> str:
    """The interval of a figure of HINDSIGHT; empty where there is nothing to be wrong about."""
    too_few = TOO_FEW if line["n_users"] < FEWEST_USERS else ""
    return interval(line[f"{name}_low"], line[f"{name}_high"], with_sign) or too_few


def _plain_grid(table: pl.DataFrame) -> Grid:
    """Any table, numbers with four decimals where they are not whole."""
    rows = [[Cell(_said(value)) for value in row] for row in table.iter_rows()]
    return Grid([name.replace("_", " ") for name in table.columns], rows)


def _said(value: object) -> str:
    if value is None:
        return "–"
    return metric(value) if isinstance(value, float) else str(value)
