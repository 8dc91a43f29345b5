"""Stage report: one self-contained HTML page about the whole run."""

from collections import Counter
from dataclasses import replace
from itertools import accumulate
from statistics import fmean

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.lineage import aligned_on, lineage
from recalign.artifacts.roots import open_root
from recalign.chain import name_of_data
from recalign.config import ComparisonConfig, EndedReportConfig, EvaluationPhase, ReportConfig
from recalign.evaluation.result_table import ResultRow, rows_of
from recalign.evaluation.segments import segment_results, user_segments
from recalign.evaluation.texts.quality import liked_values, malformed_reasons, text_sets
from recalign.evaluation.texts.rows import policy_label
from recalign.llm.storage import POLICY_CURVE
from recalign.metric_columns import SCORE, Metric, primary_of
from recalign.pairs.describe import flat_pairs
from recalign.parquet import read_parquet
from recalign.report import PAGE
from recalign.report.content import DataSet, Example, Round, StageRun
from recalign.report.dpo4rec import DPO4RecRun, dpo4rec_page
from recalign.report.examples import ExampleTexts, TakenItems, draw_examples, liked_in_words
from recalign.report.page import write_page
from recalign.report.result_lines import headline_metrics
from recalign.report.wording import plural, reward_name
from recalign.schemas import (
    COMPLETIONS,
    CURVE_FILE,
    FACETS,
    REASONINGS,
    RECOMMENDED,
    RESULTS,
    REWARDS,
    ROWS_PER_USER,
    SEGMENTS,
    TEXTS,
    TRUTH,
    read_table,
)
from recalign.splits.candidates import history_popularity
from recalign.splits.phases import Phase, phase_of
from recalign.training.log_table import LOG
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.kar_lists import read_lists
from tasks.tables import Tables, read_tables

N_SHOWN = 12  # items of what followed, shown in an example


@stage(version=3)
def report(
    job: Job,
    config: ReportConfig,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    policy: Artifact,
    evaluation: Artifact,
    base: Artifact,
    aligned: Artifact,
    **rounds: Artifact,
) -> None:
    """What went in, what each stage did, what came out, and where everything comes from."""
    tables = read_tables(interactions, splits)
    results = RESULTS.read(evaluation)
    per_user = ROWS_PER_USER.read(evaluation)
    primary = primary_of(results)
    shown = headline_metrics(results, primary, primary.lists)[0]
    judging = EvaluationPhase(**evaluation.manifest.config)
    phase = phase_of(tables.windows, "test")
    lists = read_lists(splits, tables, phase) if tables.protocol == "kar" else None
    judged = lists.positives(len(phase.users)) if lists else targets_of(tables, phase)
    segments = segmented(tables, judging, shown.lines(per_user), rows_of(results), judged)
    SEGMENTS.write(segments, job.draft)
    facets = evaluation.path(FACETS.file)
    curve = policy.path(POLICY_CURVE)
    written = text_sets({"base": REASONINGS.read(base), "aligned": REASONINGS.read(aligned)})
    ends = [interactions, splits, oracle, policy, evaluation, base, aligned, *rounds.values()]
    run = DPO4RecRun(
        source=interactions.manifest.config["source"],
        created=f"{evaluation.manifest.created:%Y-%m-%d %H:%M} UTC",
        results=results,
        segments=segments,
        recommended=RECOMMENDED.read(evaluation),
        data=with_rules(data_set(interactions, splits, tables), policy),
        rounds=_rounds(rounds, aligned),
        reward=reward_name(rounds["rewards_1"].manifest.config),
        texts=TEXTS.read(evaluation),
        stages=stage_runs(job, ends),
        oracle_curve=read_parquet(oracle.path(CURVE_FILE)),
        policy_curve=read_parquet(curve) if curve.exists() else None,
        facets=read_table(facets, FACETS) if facets.exists() else None,
        malformed={label: malformed_reasons(texts) for label, texts in written.items()},
        examples=_examples(config, tables, interactions, per_user, base, aligned),
        refused=config.reason if isinstance(config, EndedReportConfig) else "",
    )
    write_page(dpo4rec_page(run), job.draft.path(PAGE))
    job.draft.count(results.height)


def data_set(interactions: Artifact, splits: Artifact, tables: Tables) -> DataSet:
    """What went in: sizes, windows, and what was left out by reason."""
    return DataSet(
        name=name_of_data(interactions.manifest),
        n_users=interactions.manifest.figures["users"],
        n_items=tables.items.height,
        n_interactions=tables.interactions.height,
        dropped=interactions.manifest.dropped | splits.manifest.dropped,
        remarks=interactions.manifest.figures.get("remarks", []),
        windows=tables.windows,
        n_test_users=len(phase_of(tables.windows, "test").users),
    )


def with_rules(data: DataSet, policy: Artifact) -> DataSet:
    """The same, and what learned from texts by rule beside the LLM's own."""
    remarks, others = list(data.remarks), 0
    if data.windows is not None:
        others = len(phase_of(data.windows, "fit", prompted=False).users)
    if others:
        remarks.append(
            f"what reads the texts also learned from texts by rule about {plural(others, 'user')} "
            "whom the LLM was not asked about (over_max_users)"
        )
    if policy.manifest.config.get("warm_up"):
        told = plural(policy.manifest.rows, "text")
        remarks.append(f"before anything else the LLM was trained on {told} by rule (its warm-up)")
    return replace(data, remarks=remarks)


def segmented(
    tables: Tables,
    config: EvaluationPhase | ComparisonConfig,
    per_user: pl.DataFrame,
    rows: list[ResultRow],
    judged: list[np.ndarray],
) -> pl.DataFrame:
    """SEGMENTS of the test users: the rows in the one metric that ROWS_PER_USER is of.

    judged: the items that each user's rows are judged by.
    """
    phase = phase_of(tables.windows, "test")
    popularity = history_popularity(tables.sequences, tables.windows)
    moments = tables.interactions["timestamp"].to_numpy() if tables.protocol == "temporal" else None
    segments = user_segments(
        tables.sequences, phase.users, phase.starts, judged, popularity, moments
    )
    return segment_results(per_user, rows, segments, config.n_resamples, config.seed)


def targets_of(tables: Tables, phase: Phase) -> list[np.ndarray]:
    """The items of each user's window."""
    return tables.sequences.slices(phase.users, phase.starts, phase.ends)


def _rounds(artifacts: dict[str, Artifact], kept: Artifact) -> list[Round]:
    """Round 0 is the base policy: it has a validation and nothing else."""
    n_rounds = sum(name.startswith("validation_") for name in artifacts) - 1
    scores = [artifacts[f"validation_{n}"].manifest.figures[SCORE] for n in range(n_rounds + 1)]
    used = kept.manifest.inputs["policy"].fingerprint
    rounds = [Round(0, valid=scores[0])]
    for number in range(1, n_rounds + 1):
        rewarded = _parts(artifacts, "rewards", number)
        paired = _parts(artifacts, "pairs", number)
        aligned = _parts(artifacts, "alignment", number)
        rewards = pl.concat([REWARDS.read(made) for made in rewarded])
        pairs = pl.concat([flat_pairs(COMPLETIONS.read(made)) for made in paired])
        skipped = sum((Counter(made.manifest.dropped) for made in paired), Counter[str]())
        ties = [made.manifest.figures["tie_rate"] for made in paired]
        rounds.append(
            Round(
                number,
                valid=scores[number],
                kept=aligned[-1].manifest.fingerprint == used,
                curve=_one_after_another([read_parquet(made.path(LOG)) for made in aligned]),
                rewards=rewards.filter(pl.col("sample") >= 0)["reward"].to_numpy(),
                margins=pairs["margin"].to_numpy(),
                n_users=rewards["user_index"].n_unique(),
                n_pairs=sum(made.manifest.figures["n_pairs"] for made in paired),
                n_aligned=sum(aligned_on(made.manifest.figures)[0] for made in aligned),
                by_pairs="pairs" in aligned[0].manifest.figures,
                tie_rate=None if None in ties else fmean(ties),  # parts are of equal size
                skipped=skipped,
            )
        )
    return rounds


def _parts(artifacts: dict[str, Artifact], what: str, number: int) -> list[Artifact]:
    """The parts of a round in order: what_number_1, what_number_2, and what_number, the last."""
    name = f"{what}_{number}"
    earlier = sum(one.startswith(f"{name}_") for one in artifacts)
    return [*(artifacts[f"{name}_{part}"] for part in range(1, earlier + 1)), artifacts[name]]


def _one_after_another(curves: list[pl.DataFrame]) -> pl.DataFrame:
    """Training logs as one: steps go on counting."""
    lengths = [int(curve["step"].to_numpy().max(initial=0)) for curve in curves]
    before = accumulate(lengths, initial=0)
    return pl.concat(
        c.with_columns(pl.col("step") + n) for c, n in zip(curves, before, strict=False)
    )


def _examples(
    config: ReportConfig,
    tables: Tables,
    interactions: Artifact,
    per_user: pl.DataFrame,
    base: Artifact,
    aligned: Artifact,
) -> list[Example]:
    phase = phase_of(tables.windows, "test")
    rows = {policy_label(name, "greedy", "frozen"): name for name in ("base", "aligned")}
    scored = (
        Metric(primary_of(per_user).lists, "NDCG")
        .lines(per_user)
        .select("row", "user_index", "value")
    )
    truth = interactions.path(TRUTH.file)
    cutoffs = tables.windows.select("user_index", cutoff="test_start")
    written = ExampleTexts(
        REASONINGS.read(base),
        REASONINGS.read(aligned),
        {(rows[row], user): value for row, user, value in scored.iter_rows() if row in rows},
    )
    cut, users, starts = tables.sequences.slices, phase.users, phase.starts
    n_read = base.manifest.config["history_items"]
    ends = np.minimum(phase.ends, starts + N_SHOWN)
    taken = TakenItems(
        dict(zip(users.tolist(), cut(users, starts - n_read, starts), strict=True)),
        dict(zip(users.tolist(), cut(users, starts, ends), strict=True)),
        dict(tables.items.select("item_index", "title").iter_rows()),
        liked_in_words(liked_values(read_table(truth, TRUTH), cutoffs)) if truth.exists() else {},
    )
    return draw_examples(config.n_examples, written, taken)


def stage_runs(job: Job, ends: list[Artifact]) -> list[StageRun]:
    """Every artifact that the report stands on, oldest first, as the flow calls it."""
    found = lineage(open_root(job.runtime.root), (one.manifest for one in ends))
    return [StageRun(job.labels.get(one.fingerprint, one.stage), one) for one in found.values()]
