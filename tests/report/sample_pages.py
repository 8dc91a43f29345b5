"""Runs of both methods with every part there is, as small as they can be."""

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from recalign.artifacts.manifest import Manifest
from recalign.config import ComparedRow, ShownSetting
from recalign.evaluation.next_items.claims import rosepo_rows
from recalign.metric_columns import NDCG_AT_10, Metric, metrics_in
from recalign.report.content import DataSet, Example, Round, StageRun
from recalign.report.dpo4rec import DPO4RecRun
from recalign.report.leaderboard_tables import LeaderboardRun
from recalign.report.rosepo import HARMFUL, RosePORun
from recalign.report.rosepo_opening import HELPFUL
from recalign.schemas import (
    BUDGETS,
    FACETS,
    HINDSIGHT,
    RECOMMENDED,
    RESULTS,
    SEGMENTS,
    TEXTS,
    WINDOWS,
)
from recalign.sweep_tables import CELLS, COMPARISONS, LEADERBOARD

QUESTION = "Does a personal eps beat none?"
COMPARED = [
    ComparedRow(label="Popularity", kind="popularity"),
    ComparedRow(label="SFT", kind="sft"),
    ComparedRow(label="hard, eps", kind="aligned", strategy="self_hard", estimator="pairwise"),
]
CURVE = pl.DataFrame(
    {"step": [0, 1, 2], "loss": [0.7, 0.6, 0.5], "held_out_loss": [0.69, None, 0.6]}
)
HINDSIGHT_LINES = pl.DataFrame(
    [("self_hard pairwise", 1400, 90, 0.05, 0.61, 0.58, 0.64, 0.08, 0.05, 0.11, 0.55)],
    schema=HINDSIGHT,
    orient="row",
)
ORACLE_CURVE = pl.DataFrame({"epoch": [1, 2], "loss": [5.0, 4.0], "valid_ndcg_at_10": [0.1, 0.2]})


def results(low: float = 0.001, high: float = 0.005) -> pl.DataFrame:
    """RESULTS of DPO4Rec in three metrics; low and high bound what alignment changed."""
    rows = []
    measured = (NDCG_AT_10, Metric("catalogue", "HR", 10), Metric("uniform", "NDCG", 5))
    for metric in ((None, None, *one) for one in measured):  # after strategy and estimator
        rows += [
            ("SASRec, no reasoning", "none", "none", "sasrec", *metric, 0.065, 0.06, 0.07)
            + (None,) * 5 + (900,),
            ("Base policy, greedy", "base", "greedy", "frozen", *metric, 0.074, 0.07, 0.078,
             "SASRec, no reasoning", 0.009, 0.006, 0.012, 0.138, 900),
            ("Aligned policy, greedy", "aligned", "greedy", "frozen", *metric, 0.077, 0.073, 0.081,
             "Base policy, greedy", 0.003, low, high, 0.04, 900),
        ]  # fmt: skip
    return pl.DataFrame(rows, schema=RESULTS, orient="row")


def segments(results: pl.DataFrame) -> pl.DataFrame:
    """The first metric of RESULTS as if two segments had it, each of 30 users."""
    first = metrics_in(results)[0].lines(results).with_columns(n_users=pl.lit(30, pl.Int64))
    cut = [("taste", "niche"), ("history", "long")]
    parts = [first.with_columns(kind=pl.lit(kind), segment=pl.lit(name)) for kind, name in cut]
    return pl.concat(parts).select(list(SEGMENTS))


def data_set(text: str = "toys") -> DataSet:
    windows = [(0, 10, 12, 15, 16, 18, True), (1, 20, 22, 25, 26, 30, True)]
    return DataSet(
        text, 2, 30, 48, {text: 1}, pl.DataFrame(windows, schema=WINDOWS, orient="row"), 2
    )


def stage_runs(text: str = "plain") -> list[StageRun]:
    first = manifest("interactions", "a" * 32, version=1, rows=100, dropped={text: 3})
    last = manifest("report", "b" * 32, version=2, seconds=2.0, packages={"torch": text})
    last.inputs = {"interactions": first.reference}
    return [StageRun("interactions", first), StageRun(f"report, {text}", last)]


def manifest(stage: str, fingerprint: str, **more: Any) -> Manifest:
    known: dict[str, Any] = {
        "version": 1, "created": datetime(2026, 1, 2, 3, 4, 5), "seconds": 1.0,
        "peak_memory_mb": 10.0, "git_commit": "abc", "packages": {"torch": "2.13"},
    }  # fmt: skip
    return Manifest(stage=stage, fingerprint=fingerprint, config={}, inputs={}, **(known | more))


def dpo4rec_run(text: str = "plain") -> DPO4RecRun:
    """`text` stands wherever a user's own words can."""
    rewards = np.linspace(0, 1, 50)
    named = [pl.col(name).str.replace("SASRec", text, literal=True) for name in ("row", "base")]
    return DPO4RecRun(
        source=text,
        created=text,
        results=results().with_columns(named),
        segments=segments(results().with_columns(named)),
        recommended=pl.DataFrame([(text, 0.5, 0.1, 90.0, 0.3)], schema=RECOMMENDED, orient="row"),
        data=data_set(text),
        rounds=[Round(0, 0.2), Round(1, 0.21, True, CURVE, rewards, rewards / 9, 50, 40, 0.02,
                                     {text: 10})],
        reward="log-probability, nats",
        texts=pl.DataFrame([(text, 2, 4, 9.0, 11.0, 0.5, 1.0, 0.75)], schema=TEXTS, orient="row"),
        stages=stage_runs(text),
        oracle_curve=ORACLE_CURVE,
        policy_curve=CURVE,
        facets=pl.DataFrame([(text, "genre", 1.0, None, 0.5, 2)], schema=FACETS, orient="row"),
        malformed={text: {text: 1}},
        examples=[Example(text, [text], text, text, [text], 0.1, 0.2, text)],
    )  # fmt: skip


def cell(row, metric, mean, difference=None, low=None, high=None, base=None):
    """A line of RosePO's RESULTS."""
    relative = None if difference is None else difference / mean
    paired = (base, difference, low, high, relative)
    (known,) = [one for one in rosepo_rows(COMPARED) if one.label == row]
    return (*known[:-1], *metric, mean, mean - 0.01, mean + 0.01, *paired, 90)


def table(*cells) -> pl.DataFrame:
    return pl.DataFrame(list(cells), schema=RESULTS, orient="row")


ROSEPO_RESULTS = table(
    *(
        cell(row.label, metric, 0.1 * (number + 1))
        for number, row in enumerate(COMPARED)
        for metric in (HELPFUL, *HARMFUL)
    )
)


def contrasts(*bounds: tuple[float, float]) -> pl.DataFrame:
    """The answers to one question, one per pair of bounds."""
    answers = [
        table(cell("hard, eps", HELPFUL, 0.3, (low + high) / 2, low, high, "hard, no eps"))
        for low, high in bounds
    ]
    return pl.concat(answers).select(pl.lit(QUESTION).alias("question"), pl.all())


def rosepo_run(low: float = 0.01, high: float = 0.03) -> RosePORun:
    pairs = pl.DataFrame({"pairs": ["self_hard"], "mean_cosine": [0.25], "rejected": [400]})
    smoothing = pl.DataFrame(
        {"pairs": ["self_hard pairwise"], "auc": [None]}, schema_overrides={"auc": pl.Float64}
    )
    return RosePORun(
        source="toys",
        created="today",
        compared=COMPARED,
        results=ROSEPO_RESULTS,
        contrasts=contrasts((low, high)),
        segments=segments(
            pl.concat([contrasts((low, high)).drop("question"), HELPFUL.lines(ROSEPO_RESULTS)])
        ),
        recommended=pl.DataFrame([("SFT", 0.5, 0.1, 90.0, 0.3)], schema=RECOMMENDED, orient="row"),
        budgets=pl.DataFrame(
            [("SFT", *(None,) * 5), ("hard, eps", 1300, 100, 84, 70, 56)],
            schema=BUDGETS,
            orient="row",
        ),
        unequal=["SFT continued had 1200 pairs and 80 steps, hard, eps 1300 and 84"],
        validation={"Popularity": 0.05, "SFT": 0.10, "hard, eps": 0.11},
        beam=0,
        rejections=pairs,
        smoothing=smoothing,
        hindsight=HINDSIGHT_LINES,
        n_pairs={"self_hard": 1400},
        data=data_set(),
        stages=stage_runs(),
        oracle_curve=ORACLE_CURVE,
        sft_curve=CURVE,
    )


def leaderboard_run(
    p_holm: float = 0.01,
    n_seeds: int = 4,
    values: tuple[str, str] = ("alignment.beta=0.1", "alignment.beta=0.3"),
) -> LeaderboardRun:
    """Two settings over five seeds of which one failed; the second was chosen on seed 0."""
    base, own = "Base policy, greedy", "Aligned policy, greedy"
    board, first = [], values[0]
    for label, mean in zip(values, (0.075, 0.077), strict=True):
        seeds = [mean - 0.002, mean, mean + 0.002]
        told = (mean, mean - 0.003, mean + 0.003, seeds)
        for metric in (NDCG_AT_10, Metric("catalogue", "HR", 10)):
            board += [
                (label, base, False, *metric, 0.074, 0.07, 0.078, [0.073, 0.074, 0.075])
                + (None,) * 4 + (3, 900),
                (label, own, True, *metric, *told, base, 0.003, 0.001, 0.005, 3, 900),
            ]  # fmt: skip
    each = [0.001, 0.003, 0.002, 0.004][:n_seeds]
    found = (*NDCG_AT_10, 0.0025, 0.0005, 0.0045, each, p_holm / 3, p_holm, 0.004, n_seeds, 900)
    compared = [
        (f"Is it better than {base}?", values[1], own, values[1], base, *found),
        (f"Is it better than {first}?", values[1], own, first, own, *found),
    ]
    cells: list[tuple[object, ...]] = [
        (label, seed, f"report/{seed}", 0.1 + place, 300.0, 20.0, 1000, 1400, None)
        for place, label in enumerate(values)
        for seed in ((0, 1, 2) if not place else (0, 2, 3))
    ]
    cells.append((values[1], 1, *(None,) * 6, "no signal <b>"))
    comparisons = pl.DataFrame(compared, schema=COMPARISONS, orient="row")
    return LeaderboardRun(
        title="Sweep of toys",
        created="today",
        settings=[ShownSetting(label=one, values=[one]) for one in values],
        metrics=[NDCG_AT_10, Metric("catalogue", "HR", 10)],
        board=pl.DataFrame(board, schema=LEADERBOARD, orient="row"),
        comparisons=comparisons,
        cells=pl.DataFrame(cells, schema=CELLS, orient="row"),
        validated_by=dict.fromkeys(values, NDCG_AT_10),
        chosen=(values[1], 0),
        confirmed=comparisons,
    )
