"""The summary table agrees with the single intervals and refuses unequal users."""

import numpy as np
import polars as pl
import pytest

from recalign.evaluation.intervals import mean_interval, paired_bootstrap
from recalign.evaluation.result_table import pooled_table, recommended_table, summary_table
from recalign.evaluation.rows import Evaluated, Row

ROWS = [Row("a", "none", "none", "sasrec"), Row("b", "base", "greedy", "frozen", base="a")]


def per_user(seed: int, n_users: int, shift: float = 0.1) -> pl.DataFrame:
    values = np.random.default_rng(seed).normal(size=n_users)
    table = {"user_index": range(n_users), "NDCG@10": values, "list HR@1": values**2}
    a = pl.DataFrame({"row": "a", **table})
    return pl.concat([a, a.with_columns(pl.lit("b").alias("row"), pl.col("NDCG@10") + shift)])


def test_table_gives_the_same_numbers_as_the_single_intervals():
    users = per_user(0, 60)
    table = summary_table(ROWS, users, 500, seed=4)
    a, b = (users.filter(pl.col("row") == row)["NDCG@10"].to_numpy() for row in "ab")
    cell = table.row(by_predicate=(pl.col("row") == "b") & (pl.col("metric") == "NDCG@10"),
                     named=True)  # fmt: skip
    assert (cell["mean"], cell["low"], cell["high"]) == pytest.approx(mean_interval(b, 500, 4))
    assert (cell["difference"], cell["difference_low"], cell["difference_high"]) == pytest.approx(
        paired_bootstrap(b, a, 500, 4), abs=1e-12
    )
    assert cell["relative"] == pytest.approx(0.1 / a.mean())
    assert (cell["base"], cell["n_users"]) == ("a", 60)


def test_row_without_a_base_has_no_difference():
    table = summary_table(ROWS, per_user(0, 20), 100, seed=0).filter(pl.col("row") == "a")
    assert table["mean"].null_count() == 0
    for column in ("base", "difference", "difference_low", "difference_high", "relative"):
        assert table[column].null_count() == len(table) == 2


def test_order_of_users_in_the_input_does_not_matter():
    users = per_user(0, 30)
    shuffled = users.sample(fraction=1.0, shuffle=True, seed=1)
    assert summary_table(ROWS, users, 100, 0).equals(summary_table(ROWS, shuffled, 100, 0))


def test_row_measured_on_other_users_is_refused():
    users = per_user(0, 30).filter((pl.col("row") == "a") | (pl.col("user_index") > 0))
    with pytest.raises(ValueError, match="'b' was measured on other users"):
        summary_table(ROWS, users, 100, 0)


def test_pooled_table_is_the_mean_of_the_runs():
    runs = [per_user(seed, 40 + seed, shift) for seed, shift in enumerate((0.0, 0.3))]
    table = pooled_table(ROWS, runs, 200, seed=0).filter(
        (pl.col("row") == "b") & (pl.col("metric") == "NDCG@10")
    )
    # Each run's difference is constant over users, so nothing is left to the resampling.
    assert table.select("difference", "difference_low", "difference_high").row(0) == pytest.approx(
        (0.15, 0.15, 0.15)
    )
    assert table["n_users"].item() == 81
    means = [run.filter(pl.col("row") == "b")["NDCG@10"].mean() for run in runs]
    assert table["mean"].item() == pytest.approx(np.mean(means))


def test_recommended_heads_are_described_per_row():
    # Five items with 9, 4, 3, 2, 1 interactions; the head (a fifth) is item 1.
    heads = Evaluated(pl.DataFrame(), np.array([[1, 2], [1, 3]]))
    line = recommended_table({"a": heads}, np.array([0, 9, 4, 3, 2, 1])).row(0, named=True)
    assert line["row"] == "a"
    assert line["coverage"] == 3 / 5
    assert line["average_popularity"] == (6.5 + 6) / 2
    assert line["long_tail_share"] == 0.5
    # Times recommended, sorted: 0 0 1 1 2; sum (2 i - 6) x_i = 0 + 2 + 8 over 5 * 4.
    assert line["gini"] == pytest.approx(10 / 20)
