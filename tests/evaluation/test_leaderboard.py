"""Settings over seeds and users: pairing, what is compared, and what was chosen is judged apart."""

import numpy as np
import polars as pl
import pytest

from recalign.evaluation.leaderboard import (
    Comparison,
    SeedRuns,
    chosen_setting,
    comparison_table,
    comparisons,
    confirmation,
    leaderboard_table,
    main_row,
    seed_runs,
)
from recalign.evaluation.per_user import per_user_table, rows_per_user
from recalign.metric_columns import NDCG_AT_10, Metric, primary_of, validated_by
from recalign.schemas import RESULTS
from recalign.sweep_tables import CELLS
from tests.report.sample_pages import COMPARED, cell, table

USERS = np.arange(200)


def run(shift, seed, users=USERS):
    """ROWS_PER_USER of a base row and an aligned one, whose mean is higher by `shift`."""
    hard = np.random.default_rng(0).normal(0.5, 0.2, len(users))
    own = np.random.default_rng(seed + 1).normal(0, 0.01, len(users))
    rows = {"base": hard, "aligned": hard + shift + own - own.mean()}
    return rows_per_user({n: per_user_table(users, {NDCG_AT_10: v}) for n, v in rows.items()})


def setting(shifts) -> SeedRuns:
    results = pl.DataFrame({"row": ["base", "aligned"], "base": [None, "base"]})
    tables = {seed: run(shift, seed) for seed, shift in shifts.items()}
    return seed_runs(tables, results, n_resamples=300, seed=0)


def cells_of(**validations):
    """CELLS of settings with a validation on seeds 0, 1, ..."""
    lines = [
        (name, seed, "report/a", score, 1.0, 1.0, 0, 0, None)
        for name, scores in validations.items()
        for seed, score in enumerate(scores)
    ]
    return pl.DataFrame(lines, schema=CELLS, orient="row")


OWN = [("", "aligned", "base")]


def test_a_difference_is_paired_by_user_and_seed():
    runs = setting({0: 0.02, 1: 0.03, 2: 0.04})
    found = runs.difference(("aligned", NDCG_AT_10), runs, ("base", NDCG_AT_10))
    assert found.per_seed == pytest.approx((0.02, 0.03, 0.04))
    # Users leave .01 / sqrt(200 * 3) = .0004 open, seeds .01 / sqrt(3) = .0058; unpaired users
    # would leave .2 / sqrt(200) * sqrt(2) = .02.
    # The interval is that of Student's t with 2 degrees of freedom, 4.30 of those.
    assert found.interval[1] - found.mean == pytest.approx(4.30 * 0.0058, rel=0.05)


def test_two_settings_are_compared_over_the_seeds_that_both_have():
    one, other = setting({0: 0.05, 1: 0.03, 2: 0.04}), setting({1: 0.01, 2: 0.02, 7: 0.9})
    key = ("aligned", NDCG_AT_10)
    assert one.difference(key, other, key).per_seed == pytest.approx((0.02, 0.02))
    assert not one.compares(key, setting({9: 0.1}), key)


def test_the_table_has_every_row_and_marks_what_a_setting_is_about():
    board = leaderboard_table({"a": setting({0: 0.1, 1: 0.2})}, {"a": "aligned"})
    aligned = board.row(by_predicate=pl.col("row") == "aligned", named=True)
    assert (aligned["headline"], aligned["n_seeds"], aligned["n_users"]) == (True, 2, 200)
    assert aligned["difference"] == pytest.approx(0.15)
    assert aligned["difference_low"] < 0.15 < aligned["difference_high"]
    assert board.filter(row="base")["difference"].item() is None
    assert np.diff(aligned["per_seed"]) == pytest.approx(0.1)


def test_every_setting_is_compared_with_its_base_and_with_the_first_and_p_is_corrected():
    settings = {"a": setting({0: 0.01, 1: 0.011}), "b": setting({0: 0.0, 1: 0.03})}
    asked = list(comparisons({"a": OWN, "b": OWN}, {"a": "aligned", "b": "aligned"}))
    assert asked[2] == Comparison("Is it better than a?", "b", "aligned", "a", "aligned")
    told = comparison_table(asked, settings, NDCG_AT_10)
    assert told["difference"].to_list() == pytest.approx([0.0105, 0.015, 0.0045], abs=1e-9)
    assert told["p_holm"][0] == pytest.approx(3 * told["p"][0])
    assert (told["detectable"] > told["high"] - told["difference"]).all()


def test_what_was_chosen_on_a_seed_is_judged_by_the_others():
    settings = {"a": setting({0: 0.0, 1: 0.0, 2: 0.0}), "b": setting({0: 0.5, 1: 0.01, 2: 0.02})}
    asked = list(comparisons({"a": OWN, "b": OWN}, {"a": "aligned", "b": "aligned"}))
    cells = cells_of(a=[0.1, 0.9, 0.9], b=[0.2, 0.0, 0.0])
    assert chosen_setting(cells, [NDCG_AT_10] * 2) == ("b", 0)
    told = confirmation(asked, settings, ("b", 0), NDCG_AT_10)
    assert told["setting"].to_list() == ["b", "b"]
    assert told["per_seed"][0].to_list() == pytest.approx([0.01, 0.02])  # without seed 0's .5


def test_nothing_is_chosen_of_one_setting_or_where_no_two_validations_share_a_seed():
    assert chosen_setting(cells_of(a=[0.1, 0.2]), [NDCG_AT_10]) is None
    assert chosen_setting(cells_of(a=[0.1], b=[None]), [NDCG_AT_10] * 2) is None
    assert chosen_setting(cells_of(a=[0.1, None], b=[None, 0.2]), [NDCG_AT_10] * 2) is None
    only = {"a": setting({0: 0.1, 1: 0.2})}
    asked = list(comparisons({"a": OWN}, {"a": "aligned"}))
    told = confirmation(asked, only, None, NDCG_AT_10)
    assert told["n_seeds"].to_list() == [2]


def test_where_a_run_failed_the_choice_is_made_on_the_seed_that_most_settings_have():
    missed = cells_of(a=[0.3, 0.1], b=[0.2, 0.4], c=[None, 0.2])
    assert chosen_setting(missed, [NDCG_AT_10] * 3) == ("b", 1)
    without = cells_of(a=[0.3, 0.1], b=[0.2, 0.4], c=[None, None])
    assert chosen_setting(without, [NDCG_AT_10] * 3) == ("a", 0)


def test_nothing_is_chosen_between_validations_in_different_metrics():
    cells, listed = cells_of(a=[0.1, 0.1], b=[0.4, 0.4]), NDCG_AT_10._replace(lists="uniform")
    assert chosen_setting(cells, [listed, listed]) == ("b", 0)
    assert chosen_setting(cells, [NDCG_AT_10, listed]) is None
    settings = {"a": setting({0: 0.1, 1: 0.1}), "b": setting({0: 0.1, 1: 0.1})}
    asked = list(comparisons({"a": OWN, "b": OWN}, {"a": "aligned", "b": "aligned"}))
    assert confirmation(asked, settings, None, NDCG_AT_10).is_empty()


def test_rows_are_chosen_by_a_metric_that_all_of_them_have():
    listed = NDCG_AT_10._replace(lists="uniform")
    names = ("Popularity", "SFT", "hard, eps")
    everywhere = [cell(name, one, 0.1) for name in names for one in (listed, NDCG_AT_10)]
    assert validated_by(table(*everywhere)) == primary_of(table(*everywhere)) == NDCG_AT_10
    picks = [line for line in everywhere if line[0] != "SFT" or listed.lists in line]
    assert len(picks) == len(everywhere) - 1
    assert validated_by(table(*picks)) == primary_of(table(*picks)) == listed
    assert validated_by(table(*picks, cell("SFT", Metric("catalogue", "HR", 1), 0.1))) == listed


def test_other_users_are_refused():
    results = pl.DataFrame(
        {"row": ["aligned"], "base": [None]}, {"row": pl.String, "base": pl.String}
    )
    with pytest.raises(ValueError, match="different users"):
        seed_runs({0: run(0, 0), 1: run(0, 1, USERS + 1)}, results, 100, 0)


def test_a_run_is_about_its_aligned_policy_read_and_smoothed_as_usual():
    smoothed = [
        one.model_copy(update={"label": f"hard, {name}", "estimator": name})
        for one in COMPARED[2:]
        for name in ("permuted", "none", "pairwise")
    ]
    lines = [cell("hard, eps", NDCG_AT_10, 0.2)]
    template = table(*lines)
    several = pl.concat(
        [template.with_columns(row=pl.lit(one.label), estimator=pl.lit(one.estimator))
         for one in smoothed]
    )  # fmt: skip
    assert main_row(several) == "hard, pairwise"
    with pytest.raises(ValueError, match="no policy was aligned"):
        main_row(pl.DataFrame(schema=RESULTS))
