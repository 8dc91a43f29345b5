"""RosePO's claims are compared with their own controls, on the same users."""

from typing import get_args

import numpy as np
import polars as pl
import pytest

from flows.rosepo import configured_row, variants
from recalign.config import ComparedRow, RosePOConfig, SmoothingConfig
from recalign.config.rosepo import Estimator
from recalign.evaluation.next_items.budgets import budget_table, unequal_budgets
from recalign.evaluation.next_items.claims import PERSONAL, contrast_table, questions, rosepo_rows
from recalign.evaluation.per_user import per_user_table, rows_per_user
from recalign.evaluation.result_table import resample
from recalign.metric_columns import CATALOGUE, Metric


def aligned(strategy, estimator):
    return ComparedRow(
        label=f"{strategy} {estimator}", kind="aligned", strategy=strategy, estimator=estimator
    )


COMPARED = [
    ComparedRow(label="SASRec", kind="sasrec"),
    ComparedRow(label="SFT", kind="sft"),
    ComparedRow(label="more SFT", kind="continued", strategy="self_hard"),
    aligned("random", "none"),
    aligned("self_hard", "none"),
    aligned("self_hard", "pairwise"),
    aligned("self_hard", "permuted"),
    aligned("self_hard", "truth"),
]


HIT = Metric(CATALOGUE, "HR", 1)
HALLUCINATION = Metric(CATALOGUE, "semantic hallucination")
WRONG, VALID = Metric(CATALOGUE, "wrong"), Metric(CATALOGUE, "valid")


def per_user(n=40):
    """Row number r of COMPARED hits user u where u % 8 < r; only the LLMs have validities."""
    tables = {}
    for number, row in enumerate(COMPARED):
        hit = (np.arange(n) % 8 < number).astype(float)
        error = (1 - hit) * (np.arange(n) % 2)
        values = {HIT: hit, WRONG: 1 - hit, Metric(CATALOGUE, "semantic error"): error}
        values |= {HALLUCINATION: np.where(hit == 1, np.nan, error)}
        values |= {} if row.kind == "sasrec" else {VALID: np.ones(n)}
        tables[row.label] = per_user_table(np.arange(n), values)
    return rows_per_user(tables)


@pytest.fixture(scope="module")
def means():
    return resample(per_user(), 200, 0)


@pytest.fixture(scope="module")
def table(means):
    return means.results(rosepo_rows(COMPARED))


def test_a_row_says_who_recommends_and_how_its_pairs_came_about():
    told = {row.label: (row.policy, row.recommender, row.strategy) for row in rosepo_rows(COMPARED)}
    assert told["SASRec"] == ("none", "sasrec", None)
    assert told["more SFT"] == ("continued", "llm", None)
    assert told["self_hard none"] == ("aligned", "llm", "self_hard")


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
    assert asked["Do rejected items beat more fine-tuning on the same chosen items?"] == [
        ("self_hard none", "more SFT"), ("self_hard pairwise", "more SFT"),
    ]  # fmt: skip
    assert "Do they beat as much fine-tuning on fresh items?" not in asked
    assert asked["Do chosen rejections beat random ones?"] == [
        ("self_hard none", "random none"), ("self_hard pairwise", "random none"),
    ]  # fmt: skip


def test_every_loss_and_a_constant_eps_are_asked_after_beside_fresh_items():
    more = [
        aligned("self_hard", "constant"),
        ComparedRow(label="fresh", kind="continued_fresh", strategy="self_hard"),
        ComparedRow(
            label="ipo", kind="aligned", strategy="self_hard", estimator="none", loss="ipo"
        ),
    ]
    asked = questions([*COMPARED, *more])
    assert asked["Does it beat one constant eps?"] == [("self_hard pairwise", "self_hard constant")]
    assert ("ipo", "more SFT") in asked[
        "Do rejected items beat more fine-tuning on the same chosen items?"
    ]
    assert {base for _, base in asked["Do they beat as much fine-tuning on fresh items?"]} == {
        "fresh"
    }


def test_a_softmax_eps_is_tested_as_any_other_but_not_against_permuted_pairwise_values():
    softmax = [
        aligned(one.strategy, "softmax") if one.estimator == "pairwise" else one for one in COMPARED
    ]
    asked = questions(softmax)
    assert asked["Does a personal eps beat none?"] == [("self_hard softmax", "self_hard none")]
    assert "Does it beat the same eps permuted over pairs?" not in asked
    for question in (
        "Do rejected items beat more fine-tuning on the same chosen items?",
        "Do chosen rejections beat random ones?",
    ):
        assert [row for row, _ in asked[question]] == ["self_hard none", "self_hard softmax"]


def test_where_no_eps_is_read_rejections_are_compared_with_random_ones_by_the_same_loss():
    compared = [
        ComparedRow(
            label=f"{name}, dpo", kind="aligned", strategy=name, estimator="none", loss="dpo"
        )
        for name in ("random", "self_hard")
    ]
    assert questions(compared) == {
        "Do chosen rejections beat random ones?": [("self_hard, dpo", "random, dpo")]
    }


def figures(pairs, steps):
    return {"pairs": pairs + 10, "held_out_pairs": 10, "planned_steps": steps, "steps": steps,
            "best_step": steps - 1}  # fmt: skip


def test_a_row_with_other_pairs_or_steps_than_what_a_claim_compares_it_with_is_named():
    trained = [row.label for row in COMPARED if row.strategy]
    equal = budget_table({"SFT": {}} | {label: figures(90, 6) for label in trained})
    assert equal.row(0) == ("SFT", *(None,) * 5)
    assert unequal_budgets(COMPARED, equal) == []
    for base in ("more SFT", "random none"):
        for pairs, steps in ((91, 6), (90, 7)):
            other = equal.filter(pl.col("row") != base)
            told = unequal_budgets(
                COMPARED, pl.concat([other, budget_table({base: figures(pairs, steps)})])
            )
            assert told == [
                f"{base} had {pairs} pairs and {steps} steps, {row} 90 and 6"
                for row in ("self_hard none", "self_hard pairwise")
            ]


def test_a_pair_of_rows_that_two_claims_compare_is_named_once():
    dropped = figures(70, 5)  # drop_above left some out
    budgets = budget_table(
        {row.label: figures(90, 6) for row in COMPARED if row.strategy}
        | {"self_hard pairwise": dropped, "SFT": {}}
    )
    told = unequal_budgets(COMPARED, budgets)
    assert len(told) == len(set(told))
    bases = {one.split(" had ")[0] for one in told}
    assert bases == {"self_hard none", "self_hard permuted", "more SFT", "random none"}
    assert all(one.endswith("self_hard pairwise 70 and 5") for one in told)


def test_a_question_without_its_control_is_not_asked():
    without = [row for row in COMPARED if row.estimator not in ("permuted", "truth")]
    assert set(questions(without)) == {
        "Does a personal eps beat none?",
        "Do rejected items beat more fine-tuning on the same chosen items?",
        "Do chosen rejections beat random ones?",
    }


def test_differences_are_those_of_the_rows_named(means):
    told = HIT.lines(contrast_table(COMPARED, means))
    (one,) = told.filter(question="Does a personal eps beat none?").to_dicts()
    # rows 5 and 4 hit 5 and 4 users of every 8
    assert one["mean"] == pytest.approx(5 / 8)
    assert one["difference"] == pytest.approx(1 / 8)
    assert one["base"] == "self_hard none"
    assert 0 < one["difference_low"] <= 1 / 8 <= one["difference_high"]


def test_a_metric_is_told_only_of_the_rows_that_have_it(table):
    assert set(VALID.lines(table)["row"]) == {r.label for r in COMPARED} - {"SASRec"}
    assert set(HIT.lines(table)["row"]) == {row.label for row in COMPARED}


def test_a_row_is_not_compared_in_a_metric_that_its_base_lacks(means):
    row = rosepo_rows(COMPARED)[1]
    against = means.results([row._replace(base="SASRec")])
    assert HIT.lines(against)["base"].item() == "SASRec"
    assert VALID.lines(against).select("base", "difference").row(0) == (None, None)


def test_a_share_of_wrong_answers_is_a_ratio_of_means(table):
    shares = dict(HALLUCINATION.lines(table).select("row", "mean").iter_rows())
    # SASRec never hits: half of its wrong answers stand at odd users. Row 1 misses users 1 .. 7 of
    # every 8, of which 1, 3, 5 and 7 are odd.
    assert shares["SASRec"] == pytest.approx(1 / 2)
    assert shares["SFT"] == pytest.approx(4 / 7)
    wrong = dict(WRONG.lines(table).select("row", "mean").iter_rows())
    assert wrong["SFT"] == pytest.approx(7 / 8)


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_the_page_opens_with_the_row_that_is_configured(estimator):
    config = RosePOConfig(smoothing=SmoothingConfig(estimator=estimator))
    rows, own = variants(config), configured_row(config)
    asked = questions(rows)
    assert next(iter(asked.values()))[0][0] == own
    marked = [row.label for row in rows if row.configured]
    assert marked == ([] if estimator in PERSONAL else [own])
    assert all("configured" not in row.identity() for row in rows if not row.configured)
