"""RosePO's claims are compared with their own controls, on the same users."""

import numpy as np
import polars as pl
import pytest

from recalign.config import ComparedRow
from recalign.evaluation.contrasts import (
    compared_table,
    contrast_table,
    questions,
    recommended_rows,
    rosepo_rows,
    wide_table,
)


def aligned(strategy, estimator):
    return ComparedRow(
        label=f"{strategy} {estimator}", kind="aligned", strategy=strategy, estimator=estimator
    )


COMPARED = [
    ComparedRow(label="SASRec", kind="sasrec"),
    ComparedRow(label="SFT", kind="sft"),
    ComparedRow(label="more SFT", kind="continued"),
    aligned("random", "none"),
    aligned("self_hard", "none"),
    aligned("self_hard", "pairwise"),
    aligned("self_hard", "permuted"),
    aligned("self_hard", "truth"),
]


def long(values):
    """PER_USER of {metric: values by user}."""
    return pl.DataFrame(
        [(u, m, v) for m, column in values.items() for u, v in enumerate(column)],
        schema={"user_index": pl.Int32, "metric": pl.String, "value": pl.Float64}, orient="row",
    )  # fmt: skip


def per_user(n=40):
    """Row number r of COMPARED hits user u where u % 8 < r; only the LLMs have validities."""
    tables = []
    for number, row in enumerate(COMPARED):
        hit = (np.arange(n) % 8 < number).astype(float)
        values = {"HR@1": hit, "semantic error": (1 - hit) * (np.arange(n) % 2)}
        values |= {"semantic hallucination": [None] * n}
        values |= {} if row.kind == "sasrec" else {"valid": np.ones(n)}
        tables.append(wide_table(row.label, long(values)))
    return pl.concat(tables, how="diagonal")


def test_every_row_but_the_sft_model_is_compared_with_it():
    assert {row.label: row.base for row in rosepo_rows(COMPARED)} == {
        row.label: None if row.label == "SFT" else "SFT" for row in COMPARED
    }


def test_each_question_sets_a_row_against_its_own_control():
    asked = questions(COMPARED)
    assert asked["Does a personal eps beat none?"] == [("self_hard pairwise", "self_hard none")]
    assert asked["Does it beat the same eps permuted over pairs?"] == [
        ("self_hard pairwise", "self_hard permuted")
    ]
    assert asked["What would the true eps give?"] == [("self_hard truth", "self_hard none")]
    assert ("random none", "more SFT") in asked[
        "Do rejected items beat more fine-tuning on the chosen alone?"
    ]
    assert asked["Do chosen rejections beat random ones?"] == [
        ("self_hard none", "random none"), ("self_hard pairwise", "random none"),
    ]  # fmt: skip


def test_a_question_without_its_control_is_not_asked():
    without = [row for row in COMPARED if row.estimator not in ("permuted", "truth")]
    assert set(questions(without)) == {
        "Does a personal eps beat none?",
        "Do rejected items beat more fine-tuning on the chosen alone?",
        "Do chosen rejections beat random ones?",
    }


def test_differences_are_those_of_the_rows_named():
    told = contrast_table(COMPARED, [per_user()], 200, 0)
    one = told.filter(question="Does a personal eps beat none?", metric="HR@1").row(0, named=True)
    # rows 5 and 4 hit 5 and 4 users of every 8
    assert one["mean"] == pytest.approx(5 / 8)
    assert one["difference"] == pytest.approx(1 / 8)
    assert one["base"] == "self_hard none"
    assert 0 < one["difference_low"] <= 1 / 8 <= one["difference_high"]


def test_a_metric_is_told_only_of_the_rows_that_have_it():
    table = compared_table(COMPARED, [per_user()], 200, 0)
    assert set(table.filter(metric="valid")["row"]) == {r.label for r in COMPARED} - {"SASRec"}
    assert set(table.filter(metric="HR@1")["row"]) == {row.label for row in COMPARED}


def test_a_share_of_wrong_answers_is_a_ratio_of_means():
    table = compared_table(COMPARED, [per_user()], 200, 0)
    shares = dict(table.filter(metric="semantic hallucination").select("row", "mean").iter_rows())
    # SASRec never hits: half of its wrong answers stand at odd users. Row 1 misses users 1 .. 7 of
    # every 8, of which 1, 3, 5 and 7 are odd.
    assert shares["SASRec"] == pytest.approx(1 / 2)
    assert shares["SFT"] == pytest.approx(4 / 7)
    wrong = dict(table.filter(metric="wrong").select("row", "mean").iter_rows())
    assert wrong["SFT"] == pytest.approx(7 / 8)


def test_only_rows_with_lists_say_what_they_recommend():
    told = {"coverage": 0.5, "gini": 0.7}
    told |= {"means": {"average popularity": 12.0, "long-tail share": 0.1}}
    table = recommended_rows(["LLM without lists", "SASRec"], [{"means": {}}, told])
    assert table.rows() == [("SASRec", 0.5, 0.7, 12.0, 0.1)]
