"""The summary table agrees with the single intervals and refuses unequal users."""

import numpy as np
import polars as pl
import pytest

from recalign.evaluation.intervals import mean_interval
from recalign.evaluation.per_user import per_user_table, rows_per_user
from recalign.evaluation.recommended import described, recommended_table
from recalign.evaluation.result_table import ResultRow, resample
from recalign.metric_columns import FEWEST_USERS, NDCG_AT_10, Metric, told_intervals

ROWS = [
    ResultRow("a", "none", "none", "sasrec"),
    ResultRow("b", "base", "greedy", "frozen", base="a"),
]


def per_user(seed: int, n_users: int, shift: float = 0.1) -> pl.DataFrame:
    values = np.random.default_rng(seed).normal(size=n_users)
    hits = {Metric("uniform", "HR", 1): values**2}
    tables = {
        row: per_user_table(np.arange(n_users), {NDCG_AT_10: values + plus} | hits)
        for row, plus in (("a", 0.0), ("b", shift))
    }
    return rows_per_user(tables)


def summary_table(rows, per_user, n_resamples, seed):
    return resample(per_user, n_resamples, seed).results(rows)


def test_table_gives_the_same_numbers_as_the_single_intervals():
    users = per_user(0, 60)
    table = summary_table(ROWS, users, 500, seed=4)
    a, b = (NDCG_AT_10.lines(users).filter(row=row)["value"].to_numpy() for row in "ab")
    (cell,) = NDCG_AT_10.lines(table).filter(row="b").to_dicts()
    assert (cell["mean"], cell["low"], cell["high"]) == pytest.approx(mean_interval(b, 500, 4))
    assert (cell["difference"], cell["difference_low"], cell["difference_high"]) == pytest.approx(
        mean_interval(b - a, 500, 4), abs=1e-12
    )
    assert cell["relative"] == pytest.approx(0.1 / a.mean())
    assert (cell["base"], cell["n_users"]) == ("a", 60)


def test_row_without_a_base_has_no_difference():
    table = summary_table(ROWS, per_user(0, 20), 100, seed=0).filter(pl.col("row") == "a")
    assert table["mean"].null_count() == 0
    for column in ("base", "difference", "difference_low", "difference_high", "relative"):
        assert table[column].null_count() == len(table) == 2


@pytest.mark.parametrize(("n_users", "told"), [(FEWEST_USERS - 1, False), (FEWEST_USERS, True)])
def test_of_too_few_users_means_and_differences_are_told_without_intervals(n_users, told):
    lines = told_intervals(summary_table(ROWS, per_user(0, n_users), 100, 0)).filter(row="b")
    assert lines.select("mean", "difference", "relative").null_count().row(0) == (0, 0, 0)
    bounds = lines.select("low", "high", "difference_low", "difference_high")
    assert bounds.null_count().row(0) == (0 if told else len(lines),) * 4


def test_order_of_users_in_the_input_does_not_matter():
    users = per_user(0, 30)
    turned = users.sort("user_index", descending=True, maintain_order=True)
    assert summary_table(ROWS, users, 100, 0).equals(summary_table(ROWS, turned, 100, 0))


def test_row_measured_on_other_users_is_refused():
    users = per_user(0, 30).filter((pl.col("row") == "a") | (pl.col("user_index") > 0))
    with pytest.raises(ValueError, match="'b' was measured on other users"):
        summary_table(ROWS, users, 100, 0)


def test_recommended_heads_are_described_per_row():
    # Five items with 9, 4, 3, 2, 1 interactions; the head (a fifth) is item 1.
    columns = described(np.array([[1, 2], [1, 3]]), np.array([0, 9, 4, 3, 2, 1]))
    line = recommended_table({"a": columns}).row(0, named=True)
    assert line["row"] == "a"
    assert line["coverage"] == 3 / 5
    assert line["average_popularity"] == (6.5 + 6) / 2
    assert line["long_tail_share"] == 0.5
    # Times recommended, sorted: 0 0 1 1 2; sum (2 i - 6) x_i = 0 + 2 + 8 over 5 * 4.
    assert line["gini"] == pytest.approx(10 / 20)
