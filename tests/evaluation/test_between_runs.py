"""What `recalign diff` says of two runs' results: rows by label, differences paired by user."""

import numpy as np
import polars as pl
import pytest

from recalign.evaluation.between_runs import RunResults, rows_between_runs
from recalign.evaluation.per_user import per_user_table, rows_per_user
from recalign.metric_columns import NDCG_AT_10
from recalign.schemas import RESULTS

SPREAD = np.random.default_rng(0).normal(0.5, 0.2, 400)


def judged(users, **rows):
    """Results of these rows; each has the mean of its values, between 0 and 1."""
    values = {n: per_user_table(users, {NDCG_AT_10: v}) for n, v in rows.items()}
    lines = [
        dict.fromkeys(RESULTS) | NDCG_AT_10._asdict()
        | {"row": n, "mean": float(v.mean()), "low": 0.0, "high": 1.0, "n_users": len(users)}
        for n, v in rows.items()
    ]  # fmt: skip
    return RunResults(pl.DataFrame(lines, RESULTS), rows_per_user(values))


def test_a_difference_is_paired_by_the_users_that_both_runs_judged():
    old = judged(np.arange(400), base=SPREAD, gone=SPREAD)
    new = judged(np.arange(100, 500), new=SPREAD, base=np.roll(SPREAD, -100) + 0.01)
    (base,) = rows_between_runs(old, new, NDCG_AT_10, paired=True)
    assert base.row == "base"
    assert base.first[0] == pytest.approx(SPREAD.mean())
    assert base.second[0] == pytest.approx(SPREAD.mean() + 0.01)
    # The 300 users of both have the same value but for .01, so no draw of users changes it.
    assert base.difference == pytest.approx((0.01, 0.01, 0.01))


def test_of_a_handful_of_users_no_interval_is_told():
    old, new = judged(np.arange(5), base=SPREAD[:5]), judged(np.arange(5), base=SPREAD[1:6])
    (base,) = rows_between_runs(old, new, NDCG_AT_10, paired=True)
    assert base.difference is not None
    assert base.first[1:] == base.second[1:] == base.difference[1:] == (None, None)


def test_runs_of_other_users_or_cases_have_no_difference():
    one, other = judged(np.arange(400), base=SPREAD), judged(np.arange(400, 800), base=SPREAD)
    assert rows_between_runs(one, other, NDCG_AT_10, paired=True)[0].difference is None
    assert rows_between_runs(one, one, NDCG_AT_10, paired=False)[0].difference is None
