"""RosePO's comparisons: every aligned policy against the SFT model, and each claim by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recalign.config import ComparedRow
from recalign.evaluation.result_table import pooled_table
from recalign.evaluation.rows import Row
from recalign.schemas import RECOMMENDED

TUNED, CONTINUED = "sft", "continued"
STARTS = ("", "list ", "popular list ")
"""How labels of the catalogue's and of the two kinds of lists' metrics start."""
WRONG = "wrong"
SHARES = {
    f"{start}{kind} hallucination": (f"{start}{kind} error", f"{start}{WRONG}")
    for start in STARTS
    for kind in ("semantic", "popular")
}
"""What is wrong in the first place, as a share of what is wrong there."""


def rosepo_rows(compared: Sequence[ComparedRow]) -> list[Row]:
    """Rows of the result table; all but the SFT model are compared with it."""
    tuned = _label_of(compared, TUNED)
    return [
        Row(
            one.label,
            policy=one.kind,
            decoding="none",
            recommender=one.kind,
            base=None if one.kind == TUNED else tuned,
        )
        for one in compared
    ]


def questions(compared: Sequence[ComparedRow]) -> dict[str, list[tuple[str, str]]]:
    """What the method has to show: a question, and the (row, base row) pairs that answer it."""
    labels = {(one.strategy, one.estimator): one.label for one in compared if one.strategy}
    continued = _label_of(compared, CONTINUED)
    personal = [(s, e) for s, e in labels if e in ("pairwise", "softmax")]
    random = labels.get(("random", "none"))
    asked = {
        "Does a personal eps beat none?": [
            (labels[s, e], labels[s, "none"]) for s, e in personal if (s, "none") in labels
        ],
        "Does it beat the same eps permuted over pairs?": [
            (labels[s, e], labels[s, "permuted"]) for s, e in personal if (s, "permuted") in labels
        ],
        "What would the true eps give?": [
            (label, labels[s, "none"])
            for (s, e), label in labels.items()
            if e == "truth" and (s, "none") in labels
        ],
        "Do rejected items beat more fine-tuning on the chosen alone?": [
            (label, continued) for (_, e), label in labels.items() if e in ("none", "pairwise")
        ]
        if continued
        else [],
        "Do chosen rejections beat random ones?": [
            (label, random)
            for (s, e), label in labels.items()
            if random and s != "random" and e in ("none", "pairwise")
        ],
    }
    return {question: pairs for question, pairs in asked.items() if pairs}


def wide_table(label: str, per_user: pl.DataFrame) -> pl.DataFrame:
    """PER_USER of one row as row, user_index and one column per metric that all users have.

    Shares of wrong first places are undefined for users without any: they give way to `wrong`,
    and come back as ratios of means.
    """
    table = per_user.filter(~pl.col("metric").is_in(list(SHARES)))
    table = table.pivot("metric", index="user_index", values="value", maintain_order=True)
    wrong = [
        (1 - pl.col(f"{start}HR@1")).alias(f"{start}{WRONG}")
        for start in STARTS
        if f"{start}HR@1" in table.columns
    ]
    return table.select(pl.lit(label).alias("row"), pl.all(), *wrong)


def compared_table(
    compared: Sequence[ComparedRow],
    runs: Sequence[pl.DataFrame],
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """RESULTS of all rows, a metric only for the rows that have it; see `table.pooled_table`.

    runs: per run a table with row, user_index and one column per metric, null where a row has no
    such metric (a text's validity where no text was written).
    """
    tables = []
    for labels, metrics in _measured(runs[0]):
        rows = [row for row in rosepo_rows(compared) if row.label in labels]
        bases = {row.label for row in rows}
        rows = [row if row.base in bases else _against(row, None) for row in rows]
        kept = [one.select("row", "user_index", *metrics) for one in runs]
        tables.append(pooled_table(rows, kept, n_resamples, seed, _shares(metrics)))
    return pl.concat(tables)


def _shares(metrics: Sequence[str]) -> dict[str, tuple[str, str]]:
    return {name: of for name, of in SHARES.items() if set(of) <= set(metrics)}


def _measured(per_user: pl.DataFrame) -> list[tuple[set[str], list[str]]]:
    """Metrics by the rows that have them, in the order of the columns."""
    names = [name for name in per_user.columns if name not in ("row", "user_index")]
    counts = per_user.group_by("row").agg(pl.col(name).count() for name in names)
    groups: dict[frozenset[str], list[str]] = {}
    for name in names:
        rows = frozenset(counts.filter(pl.col(name) > 0)["row"])
        groups.setdefault(rows, []).append(name)
    return [(set(rows), metrics) for rows, metrics in groups.items() if rows]


def contrast_table(
    compared: Sequence[ComparedRow],
    runs: Sequence[pl.DataFrame],
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """RESULTS of the answers, with the column `question` in front; see `compared_table`."""
    rows = {row.label: row for row in rosepo_rows(compared)}
    everywhere = next(metrics for labels, metrics in _measured(runs[0]) if labels >= set(rows))
    runs = [one.select("row", "user_index", *everywhere) for one in runs]
    answers = []
    for question, pairs in questions(compared).items():
        bases = dict(pairs)
        used = dict.fromkeys([*bases.values(), *bases])
        asked = [_against(rows[label], bases.get(label)) for label in used]
        table = pooled_table(asked, runs, n_resamples, seed, _shares(everywhere))
        table = table.filter(pl.col("row").is_in(bases))
        answers.append(table.select(pl.lit(question).alias("question"), pl.all()))
    return pl.concat(answers)


def _against(row: Row, base: str | None) -> Row:
    return Row(row.label, row.policy, row.decoding, row.recommender, base)


def _label_of(compared: Sequence[ComparedRow], kind: str) -> str | None:
    return next((one.label for one in compared if one.kind == kind), None)


def recommended_rows(labels: Sequence[str], figures: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """RECOMMENDED from what each row's judgement says of its lists; rows without lists are out."""
    lines = [
        (
            label,
            told["coverage"],
            told["gini"],
            told["means"]["average popularity"],
            told["means"]["long-tail share"],
        )
        for label, told in zip(labels, figures, strict=True)
        if "coverage" in told
    ]
    return pl.DataFrame(lines, schema=RECOMMENDED, orient="row")
