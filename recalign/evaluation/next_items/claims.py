"""RosePO's comparisons: every aligned policy against the SFT model, and each claim by itself."""

from collections.abc import Sequence

import polars as pl

from recalign.config import ComparedRow
from recalign.evaluation.result_table import Resampled, ResultRow

TUNED = "sft"
CONTINUED = ("continued", "continued_fresh")
PERSONAL = ("pairwise", "softmax")  # estimators of each pair's own eps
BEATEN = {
    "Does a personal eps beat none?": "none",
    "Does it beat the same eps permuted over pairs?": "permuted",
    "Does it beat one constant eps?": "constant",
}
"""Questions about a personal eps, and the estimator that it is compared with."""


def rosepo_rows(compared: Sequence[ComparedRow]) -> list[ResultRow]:
    """Rows of the result table; all but the SFT model are compared with it."""
    tuned = _label_of(compared, TUNED)
    return [
        ResultRow(
            one.label,
            policy=_policy_of(one.kind),
            decoding="none",
            recommender=one.kind if one.kind in ("popularity", "sasrec") else "llm",
            strategy=one.strategy if one.kind == "aligned" else None,
            estimator=one.estimator if one.kind == "aligned" else None,
            base=None if one.kind == TUNED else tuned,
        )
        for one in compared
    ]


def questions(compared: Sequence[ComparedRow]) -> dict[str, list[tuple[str, str]]]:
    """What the method has to show: a question, and the (row, base row) pairs that answer it.

    What is asked about the configured row comes first.
    """
    aligned = [one for one in compared if one.kind == "aligned"]
    labels = {(one.strategy, one.estimator): one.label for one in aligned if not one.loss}
    random = {one.loss: one.label for one in aligned
              if (one.strategy, one.estimator) == ("random", "none")}  # fmt: skip
    budget = {(one.strategy, one.kind): one.label for one in compared if one.kind in CONTINUED}
    tested = [one for one in aligned
              if one.loss or one.configured or one.estimator in ("none", *PERSONAL)]  # fmt: skip
    own = next((one.label for one in aligned if one.configured), "")
    personal = [(s, e) for s, e in labels if e in PERSONAL]
    asked = {
        question: [
            (labels[s, e], labels[s, other])
            for s, e in personal
            if (s, other) in labels and (e, other) != ("softmax", "permuted")  # pairwise permuted
        ]
        for question, other in BEATEN.items()
    }
    asked |= {
        "What would the true eps give?": [
            (label, labels[s, "none"])
            for (s, e), label in labels.items()
            if e == "truth" and (s, "none") in labels
        ],
        "Do rejected items beat more fine-tuning on the same chosen items?": [
            (one.label, budget[one.strategy, "continued"])
            for one in tested
            if (one.strategy, "continued") in budget
        ],
        "Do they beat as much fine-tuning on fresh items?": [
            (one.label, budget[one.strategy, "continued_fresh"])
            for one in tested
            if (one.strategy, "continued_fresh") in budget
        ],
        "Do chosen rejections beat random ones?": [
            (one.label, random[one.loss])
            for one in tested
            if one.strategy != "random" and one.loss in random
        ],
    }
    own_first = {
        question: sorted(pairs, key=lambda pair: pair[0] != own)
        for question, pairs in asked.items()
        if pairs
    }
    return dict(sorted(own_first.items(), key=lambda one: bool(own) and one[1][0][0] != own))


def contrast_table(compared: Sequence[ComparedRow], means: Resampled) -> pl.DataFrame:
    """RESULTS of the answers, with the column `question` in front."""
    rows = {row.label: row for row in rosepo_rows(compared)}
    answers = [
        means.results([rows[label]._replace(base=base) for label, base in pairs]).select(
            pl.lit(question).alias("question"), pl.all()
        )
        for question, pairs in questions(compared).items()
    ]
    return pl.concat(answers)


def _policy_of(kind: str) -> str:
    """What RESULTS calls the policy of a row of this kind."""
    if kind in CONTINUED:
        return "continued"
    return "none" if kind in ("popularity", "sasrec") else kind


def _label_of(compared: Sequence[ComparedRow], kind: str) -> str | None:
    return next((one.label for one in compared if one.kind == kind), None)
