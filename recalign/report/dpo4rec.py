"""DPO4Rec's page: whether alignment paid, the rounds, the texts and who wrote them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recalign.metric_columns import primary_of, told_intervals
from recalign.report import plots
from recalign.report.content import (
    Cell,
    DataSet,
    Example,
    Figure,
    Grid,
    Page,
    Round,
    Section,
    StageRun,
)
from recalign.report.dpo4rec_opening import opening
from recalign.report.sections import (
    data_section,
    results_section,
    segments_section,
    training_section,
)
from recalign.report.wording import count, metric, percent, reasons
from recalign.schemas import FACETS, RESULTS, SEGMENTS, TEXTS, check_table

SEGMENTED = (pl.col("recommender") == "frozen") & (
    (pl.col("policy") == "aligned")
    | (pl.col("policy") == "base") & (pl.col("decoding") == "greedy")
)
"""Rows whose segments the page shows: what a reasoning adds, and what alignment adds to that."""

LEARNED_ABOUT = (
    "The refitted recommender, and from round 2 on the one that gives rewards, read texts of a "
    "policy that was aligned on prompts about most of the same users, those held out of the fit "
    "among them: what the signal guard sees there may be flattered, validation and test are not."
)
"""Windows of every user: alignment learns from prompts that show the items of the fit window."""


@dataclass(frozen=True)
class DPO4RecRun:
    """What a run of DPO4Rec has to show; tables have the schemas of `recalign.schemas`."""

    source: str
    created: str
    """Time of the run, as it should be printed."""
    results: pl.DataFrame
    """RESULTS of the test."""
    recommended: pl.DataFrame
    """RECOMMENDED: what the heads of the lists hold."""
    segments: pl.DataFrame
    """SEGMENTS of the test users."""
    data: DataSet
    rounds: Sequence[Round]
    reward: str
    """Name of the reward, with its unit."""
    texts: pl.DataFrame
    """TEXTS, one row per set of reasonings."""
    malformed: Mapping[str, Mapping[str, int]]
    """Malformed texts by reason, for each set of reasonings by its label in TEXTS."""
    stages: Sequence[StageRun] = ()
    oracle_curve: pl.DataFrame | None = None
    """Columns epoch, loss, valid_ndcg_at_10."""
    policy_curve: pl.DataFrame | None = None
    """Columns step and loss, and held_out_loss if measured (nats per token)."""
    facets: pl.DataFrame | None = None
    """FACETS, on the synthetic world."""
    examples: Sequence[Example] = ()
    refused: str = ""
    """Why there is no round after the last one, where the guard refused it or it failed."""


def dpo4rec_page(run: DPO4RecRun) -> Page:
    """Results, rounds and training, texts, what went in.

    BadInputError: a table lacks a column of its schema.
    """
    results = told_intervals(check_table(run.results, RESULTS, "results"))
    segments = told_intervals(check_table(run.segments, SEGMENTS, "segments"))
    sections = [
        results_section(results, primary_of(results), run.recommended),
        segments_section(segments.filter(SEGMENTED)),
        _rounds(run, own_users=primary_of(results).lists == "reranked"),
        *training_section(run.oracle_curve, run.policy_curve, "the first policy"),
        _texts(run),
        data_section(run.data),
    ]
    if run.examples:
        note = "Users drawn at random, not picked."
        sections.insert(-1, Section("Examples", "Examples", note, examples=run.examples))
    title = f"DPO4Rec on {run.source}"
    first = opening(results, run.data, run.rounds)
    return Page(title, run.created, first, sections, run.stages)


def _rounds(run: DPO4RecRun, own_users: bool) -> Section:
    """Every round in a line, then validation, rewards, margins and training curves.

    own_users: whether rewards come from other users than those whom recommenders are fitted on.
    """
    rounds, reward = run.rounds, run.reward
    aligned = [one for one in rounds if one.number > 0]
    drawn = [plots.validation_by_round(rounds)] if len(rounds) > 1 else []
    for kind, arrays in (
        ("Rewards", {f"round {one.number}": one.rewards for one in aligned}),
        ("Margins", {f"round {one.number}": one.margins for one in aligned}),
    ):
        known = {name: array for name, array in arrays.items() if array is not None and len(array)}
        if known:
            drawn.append(plots.distributions(known, f"{kind}: {reward}", reward))
    return Section(
        "Rounds of alignment",
        "Rounds",
        f"The reward is the {reward}; a margin is the reward of the chosen text minus that of the "
        "rejected one."
        + f" {LEARNED_ABOUT}" * (not own_users)
        + f" There is no further round: {run.refused}." * bool(run.refused),
        grids=[_round_grid(rounds, reward)],
        figures=[Figure(svg) for svg in drawn + plots.alignment_curves(aligned)],
    )


def _round_grid(rounds: Sequence[Round], reward: str) -> Grid:
    header = ["Round", "Users", "Pairs", "All samples tie", f"Mean reward ({reward})",
              "Mean margin", "Validation NDCG", "Users without a pair"]  # fmt: skip
    rows = [
        [
            Cell((str(one.number) if one.number else "Base policy") + " (kept)" * one.kept),
            Cell(count(one.n_users)), Cell(count(one.n_pairs)), Cell(percent(one.tie_rate)),
            Cell(_mean(one.rewards)), Cell(_mean(one.margins)),
            Cell(metric(one.valid)), Cell(reasons(one.skipped)),
        ]
        for one in rounds
    ]  # fmt: skip
    kept = [place for place, one in enumerate(rounds) if one.kept]
    return Grid(header, rows, words=("Users without a pair",), marked=kept)


def _texts(run: DPO4RecRun) -> Section:
    header = ["Texts", "Users", "Number", "Words", "Tokens", "Distinct", "Distinct within a user",
              "Valid", "Malformed"]  # fmt: skip
    rows = [
        [
            Cell(line["texts"]), Cell(count(line["n_users"])), Cell(count(line["n_texts"])),
            Cell(f"{line['words']:.1f}"), Cell(f"{line['tokens']:.1f}"),
            Cell(percent(line["distinct"])), Cell(percent(line["distinct_within_user"])),
            Cell(percent(line["valid"])), Cell(reasons(run.malformed[line["texts"]])),
        ]
        for line in check_table(run.texts, TEXTS, "texts").iter_rows(named=True)
    ]  # fmt: skip
    grids = [Grid(header, rows, words=("Malformed",))]
    if run.facets is not None:
        grids.append(_facet_grid(check_table(run.facets, FACETS, "facets")))
    return Section("What the policies wrote", "Texts", grids=grids)


def _facet_grid(facets: pl.DataFrame) -> Grid:
    """For each set of texts one cell per facet: precision over recall."""
    names = list(facets["facet"].unique(maintain_order=True))
    lined = {(line["texts"], line["facet"]): line for line in facets.iter_rows(named=True)}
    rows = [
        [Cell(texts), *(_facet_cell(lined.get((texts, name))) for name in names)]
        for texts in facets["texts"].unique(maintain_order=True)
    ]
    note = (
        "How much of what a text states the user truly likes (precision), and below it how much "
        "of what the user likes the text states (recall), at the time of the prompt."
    )
    return Grid(["Texts", *names], rows, "Against the truth of the synthetic world", note)


def _facet_cell(line: Mapping[str, float | None] | None) -> Cell:
    if line is None:
        return Cell("–")
    precision, recall = (
        "–" if share is None else f"{share:.3f}" for share in (line["precision"], line["recall"])
    )
    return Cell(precision, recall)


def _mean(values: np.ndarray | None) -> str:
    return metric(float(values.mean())) if values is not None and len(values) else "–"
