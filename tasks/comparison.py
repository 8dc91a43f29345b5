"""Stage comparison: RosePO's rows side by side, with intervals, and the page about them."""

from typing import Any

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.roots import open_root
from recalign.config import ComparisonConfig
from recalign.evaluation.next_items.budgets import budget_table, unequal_budgets
from recalign.evaluation.next_items.claims import contrast_table, rosepo_rows
from recalign.evaluation.next_items.hindsight import hindsight_table, rejected_eps
from recalign.evaluation.per_user import rows_per_user
from recalign.evaluation.recommended import recommended_table
from recalign.evaluation.result_table import resample, rows_of
from recalign.metric_columns import told_intervals, validated_by
from recalign.parquet import read_parquet
from recalign.report import PAGE
from recalign.report.forest import forest
from recalign.report.page import write_page
from recalign.report.rosepo import RosePORun, rosepo_page
from recalign.report.rosepo_opening import HELPFUL
from recalign.report.stage_page import picture, result_table
from recalign.schemas import (
    BUDGETS,
    COMPLETIONS,
    CONTRASTS_FILE,
    CURVE_FILE,
    HINDSIGHT,
    PER_USER,
    RECOMMENDED,
    REJECTIONS,
    RESULTS,
    ROWS_PER_USER,
    SEGMENTS,
)
from recalign.splits.candidates import history_popularity
from recalign.splits.phases import phase_of
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.report import data_set, segmented, stage_runs, targets_of
from tasks.tables import Tables, read_tables


@stage(version=7)
def comparison(
    job: Job,
    config: ComparisonConfig,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    sft: Artifact,
    **made: Artifact,
) -> None:
    """Every row against the SFT model, every claim against its control, and the page."""
    judged = {row.label: made[f"row_{number}"] for number, row in enumerate(config.rows)}
    per_user = rows_per_user({n: PER_USER.read(one) for n, one in judged.items()})
    means = resample(per_user, config.n_resamples, config.seed)
    results = means.results(rosepo_rows(config.rows))
    contrasts = contrast_table(config.rows, means)
    told = {label: one.manifest.figures.get("recommended") for label, one in judged.items()}
    recommended = recommended_table({label: one for label, one in told.items() if one})
    valid = {
        row.label: made[f"valid_{number}"]
        for number, row in enumerate(config.rows)
        if f"valid_{number}" in made
    }
    chosen_by = validated_by(results).label  # one metric, which every row has
    validation = {n: float(one.manifest.figures["means"][chosen_by]) for n, one in valid.items()}
    budgets = budget_table({label: _trained(job, one) for label, one in judged.items()})
    unequal = unequal_budgets(config.rows, budgets)
    tables = read_tables(interactions, splits)
    hindsight = _hindsight(config, tables, made)
    asked = rows_of(results) + rows_of(contrasts.filter(question=contrasts["question"][0]))
    phase = phase_of(tables.windows, "test")
    if n_cases := made["row_0"].manifest.config["n_cases"]:
        phase = phase.first(n_cases)
    first = targets_of(tables, phase)
    segments = segmented(tables, config, HELPFUL.lines(per_user), asked, first)
    written = (
        (ROWS_PER_USER, per_user), (RESULTS, results), (RECOMMENDED, recommended),
        (BUDGETS, budgets), (HINDSIGHT, hindsight), (SEGMENTS, segments),
    )  # fmt: skip
    for schema, table in written:
        schema.write(table, job.draft)
    contrasts.write_parquet(job.draft.path(CONTRASTS_FILE), compression="zstd")
    ends = [interactions, splits, oracle, sft, *made.values()]
    drawn = [  # and aligned on, unlike the fresh items of a control
        one.manifest
        for one in made.values()
        if one.manifest.stage == "rejections" and "matched" not in one.manifest.inputs
    ]
    run = RosePORun(
        source=interactions.manifest.config["source"],
        created=f"{max(one.manifest.created for one in judged.values()):%Y-%m-%d %H:%M} UTC",
        compared=config.rows,
        results=results,
        contrasts=contrasts,
        segments=segments,
        recommended=recommended,
        budgets=budgets,
        unequal=unequal,
        validation=validation,
        beam=max(_beam(one) for one in judged.values()),
        rejections=_described(made, "rejections", "describe.parquet"),
        smoothing=_described(made, "smoothing", "quality.parquet"),
        hindsight=hindsight,
        n_pairs={_name_of_pairs(one, made): one.rows for one in drawn},
        data=data_set(interactions, splits, tables),
        stages=stage_runs(job, ends),
        oracle_curve=read_parquet(oracle.path(CURVE_FILE)),
        sft_curve=read_parquet(sft.path(CURVE_FILE)),
    )
    write_page(rosepo_page(run), job.draft.path(PAGE))
    job.draft.count(results.height)
    job.draft.tell({"validation": validation, "unequal_budgets": unequal})


def _beam(judged: Artifact) -> int:
    """How many titles of the catalogue an LLM's beam kept; 0 where all were ranked."""
    told = judged.manifest
    return told.config["beam"] if "policy" in told.inputs else 0


def _trained(job: Job, judged: Artifact) -> dict[str, Any]:
    """The figures of the alignment whose policy was judged; none of any other row."""
    policy = judged.manifest.inputs.get("policy")
    if policy is None or policy.stage != "alignment":
        return {}
    return open_root(job.runtime.root).told(policy).figures


def _hindsight(config: ComparisonConfig, tables: Tables, made: dict[str, Artifact]) -> pl.DataFrame:
    """HINDSIGHT of every smoothing, by the name of its pairs."""
    smoothed = {
        _name_of_pairs(one.manifest, made): rejected_eps(
            REJECTIONS.read(_pairs_of(one.manifest, made)), COMPLETIONS.read(one)
        )
        for one in made.values()
        if one.manifest.stage == "smoothing"
    }
    popularity = history_popularity(tables.sequences, tables.windows)
    return hindsight_table(smoothed, tables.sequences, popularity, config.n_resamples, config.seed)


def _described(made: dict[str, Artifact], stage: str, file: str) -> pl.DataFrame:
    """What the artifacts of one stage say of their pairs, under the pairs' names."""
    tables = [
        read_parquet(one.path(file)).select(
            pl.lit(_name_of_pairs(one.manifest, made)).alias("pairs"), pl.all()
        )
        for one in made.values()
        if one.manifest.stage == stage
    ]
    return pl.concat(tables, how="diagonal_relaxed")


def _name_of_pairs(manifest: Manifest, made: dict[str, Artifact]) -> str:
    """The strategy of rejections, and whose number they match; of a smoothing, its estimator."""
    if not manifest.inputs.keys() & {"rejections", "matched"}:
        return str(manifest.config["strategy"])
    name = _name_of_pairs(_pairs_of(manifest, made).manifest, made)
    if manifest.stage == "rejections":
        return f"fresh for {name}"
    return f"{name} {manifest.config['estimator']}"


def _pairs_of(manifest: Manifest, made: dict[str, Artifact]) -> Artifact:
    """The rejections that a smoothing, or rejections of as many fresh items, stand on."""
    above = manifest.inputs.get("rejections") or manifest.inputs["matched"]
    return next(one for one in made.values() if one.reference == above)


@comparison.shows
def results_shown(made: Artifact) -> list[str]:
    """The differences to the SFT model as a forest plot, and the table."""
    results = RESULTS.read(made)
    plot = forest(told_intervals(results), HELPFUL)
    return [*([picture(plot)] if plot else []), result_table(results, [HELPFUL])]
