"""Stage leaderboard: runs side by side, over users and training seeds, and the page about them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.lineage import cost_of, lineage
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.roots import open_root
from recalign.artifacts.store import Store
from recalign.config import LeaderboardConfig, ShownCell
from recalign.errors import UserError
from recalign.evaluation.leaderboard import (
    SeedRuns,
    chosen_setting,
    comparison_table,
    comparisons,
    confirmation,
    leaderboard_table,
    main_row,
    seed_runs,
)
from recalign.evaluation.result_table import SHARES
from recalign.metric_columns import SCORE, Metric, metrics_in, primary_of, validated_by
from recalign.parquet import read_parquet
from recalign.report import PAGE
from recalign.report.leaderboard import leaderboard_page
from recalign.report.leaderboard_tables import LeaderboardRun
from recalign.report.page import write_page
from recalign.report.result_lines import headline_metrics
from recalign.report.rosepo_opening import HELPFUL
from recalign.report.wording import RANKED
from recalign.schemas import CONTRASTS_FILE, METRIC, RESULTS, ROWS_PER_USER
from recalign.sweep_tables import CELLS, COMPARISONS, LEADERBOARD
from tasks.engine.job import Job
from tasks.engine.stage import stage


@dataclass(frozen=True)
class FinishedCell:
    """One cell that has its report."""

    cell: ShownCell
    report: Artifact
    measured: Artifact
    """Holds RESULTS and ROWS_PER_USER: the report's evaluation, or the comparison itself."""
    results: pl.DataFrame
    row: str
    """What the cell is about."""
    validation: float | None
    """Missing where a RosePO run judged its rows on test alone."""
    validated_by: Metric
    """What its validation is measured in."""
    stands_on: Mapping[str, Manifest]
    """All that the row was made from, by fingerprint."""


@stage(version=3)
def leaderboard(job: Job, config: LeaderboardConfig, **cells: Artifact) -> None:
    """Every setting's rows with intervals over users and seeds, what it cost, and the page."""
    store = open_root(job.runtime.root)
    judged = [
        judge(store, cell, cells[f"cell_{number}"])
        for number, cell in enumerate(config.cells)
        if not cell.error
    ]
    by_setting = {
        shown.label: own
        for shown in config.settings
        if (own := [one for one in judged if one.cell.setting == shown.label])
    }
    metrics = shown_metrics(judged)
    settings: dict[str, SeedRuns] = {}
    for label, own in by_setting.items():
        settings[label] = read_runs(own, metrics, config)
        job.progress(len(settings), len(by_setting), "settings")
    headlines = {label: own[0].row for label, own in by_setting.items()}
    claims = {label: claims_of(own[0]) for label, own in by_setting.items()}
    asked = list(comparisons(claims, headlines))
    board = leaderboard_table(settings, headlines)
    told = comparison_table(asked, settings, metrics[0])
    costs = cost_table(config, judged)
    validations = {label: own[0].validated_by for label, own in by_setting.items()}
    chosen = chosen_setting(costs, validations.values())
    LEADERBOARD.write(board, job.draft)
    COMPARISONS.write(told, job.draft)
    CELLS.write(costs, job.draft)
    run = LeaderboardRun(
        title=config.title,
        created=f"{max(one.report.manifest.created for one in judged):%Y-%m-%d %H:%M} UTC",
        settings=[shown for shown in config.settings if shown.label in settings],
        notes=config.notes,
        metrics=metrics,
        board=board,
        comparisons=told,
        cells=costs,
        validated_by=validations,
        chosen=chosen,
        confirmed=confirmation(asked, settings, chosen, metrics[0]),
    )
    write_page(leaderboard_page(run), job.draft.path(PAGE))
    job.draft.count(board.height, {"failed cells": len(config.cells) - len(judged)})


def judge(store: Store, cell: ShownCell, report: Artifact) -> FinishedCell:
    """What a cell's report says, and what it stands on."""
    told = report.manifest
    match told.stage:
        case "comparison":
            results, rows = RESULTS.read(report), told.config["rows"]
            labels = [one["label"] for one in rows]
            row = cell.headline or configured_row(rows) or main_row(results)
            ends = [told.inputs[f"row_{labels.index(row)}"]]
            score = told.figures["validation"].get(row)  # None: judged on test alone
            measured, chosen_by = report, validated_by(results)
        case _:
            measured = store.open(told.inputs["evaluation"])
            results = RESULTS.read(measured)
            row = cell.headline or main_row(results)
            ends, score = [told.reference], _best_validation(store, told)
            chosen_by = Metric(primary_of(results).lists, "NDCG")
    made_from = lineage(store, [store.open(end).manifest for end in ends])
    return FinishedCell(cell, report, measured, results, row, score, chosen_by, made_from)


def configured_row(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of a comparison's rows the one that its run was about; "" where the results tell which."""
    return next((one["label"] for one in rows if one.get("configured")), "")


def _best_validation(store: Store, told: Manifest) -> float:
    """Of the rounds of alignment; round 0 is the base policy."""
    rounds = [r for n, r in told.inputs.items() if n.startswith("validation_")][1:]
    return max(float(store.open(one).manifest.figures[SCORE]) for one in rounds)


def shown_metrics(judged: Sequence[FinishedCell]) -> list[Metric]:
    """What every cell has of the main tables' metrics, the one to compare by first."""
    found: list[Metric] | None = None
    for one in judged:
        by_hits = one.report.manifest.stage == "comparison" and HELPFUL in metrics_in(one.results)
        primary = HELPFUL if by_hits else primary_of(one.results)
        own = [m for lists in RANKED for m in headline_metrics(one.results, primary, lists)]
        own.sort(key=lambda metric: metric.lists != primary.lists)
        found = own if found is None else [metric for metric in found if metric in own]
    if not found:
        raise UserError("these runs have no metric in common")
    return found


def read_runs(
    own: Sequence[FinishedCell], metrics: list[Metric], config: LeaderboardConfig
) -> SeedRuns:
    """The runs of one setting in these metrics."""
    parts = [metric._replace(measure=part) for metric in metrics
             for part in SHARES.get(metric.measure, ())]  # fmt: skip
    wanted = pl.DataFrame([*metrics, *parts], METRIC, orient="row").unique()
    per_user = {
        one.cell.seed: ROWS_PER_USER.read(one.measured).join(
            wanted, on=list(METRIC), how="semi", nulls_equal=True, maintain_order="left"
        )
        for one in own
    }
    return seed_runs(per_user, own[0].results, config.n_resamples, config.seed)


def claims_of(one: FinishedCell) -> list[tuple[str, str, str]]:
    """What a cell says of its row: question, row, and the row that it is compared with."""
    base = one.results.filter(row=one.row)["base"][0]
    claims = [(f"Is it better than {base}?", one.row, base)] if base else []
    answers = one.measured.path(CONTRASTS_FILE)
    if answers.exists():
        asked = read_parquet(answers).filter(row=one.row).select("question", "row", "base")
        claims += asked.unique(maintain_order=True).rows()
    return claims


def cost_table(config: LeaderboardConfig, judged: Sequence[FinishedCell]) -> pl.DataFrame:
    """CELLS, in the order of the settings; what several cells stand on is no cell's own."""
    users = Counter(key for one in judged for key in one.stands_on)
    known = {(one.cell.setting, one.cell.seed): one for one in judged}
    lines: list[tuple[object, ...]] = []
    for cell in config.cells:
        one = known.get((cell.setting, cell.seed))
        if one is None:
            lines.append((cell.setting, cell.seed, *[None] * 6, cell.error))
            continue
        own = {key: made for key, made in one.stands_on.items() if users[key] == 1}
        cost = cost_of(one.stands_on)
        told = one.report.reference.name, one.validation, cost.cpu_seconds
        counts = cost_of(own).cpu_seconds, cost.tokens, cost.pairs
        lines.append((cell.setting, cell.seed, *told, *counts, None))
    return pl.DataFrame(lines, schema=CELLS, orient="row")
