"""Metrics against numbers worked out by hand and against ranx."""

from math import log2

import numpy as np
import polars as pl
import pytest
import torch

from recalign.metric_columns import Metric, metrics_in
from recalign.metrics import (
    average_popularity,
    coverage,
    gini,
    hit_rate,
    long_tail_share,
    mean_average_precision,
    metric_table,
    mrr,
    ndcg,
)
from recalign.schemas import METRIC

RANKS = np.array([[3, 1, 0], [12, 4, 0], [0, 0, 0]])
N_TARGETS = np.array([2, 3, 0])  # one target of the second user has no rank; the third has none


def test_ndcg_divides_by_the_ideal_of_the_targets_within_k() -> None:
    first, second, none = ndcg(RANKS, N_TARGETS, 10)
    ideal = 1 + 1 / log2(3)
    assert first == pytest.approx((1 / log2(4) + 1) / ideal)
    assert second == pytest.approx((1 / log2(5)) / (ideal + 1 / log2(4)))
    assert np.isnan(none)
    assert ndcg(RANKS, N_TARGETS, 1)[0] == 1.0  # the ideal of one place is one hit


def test_ndcg_without_a_cut_off_counts_every_rank() -> None:
    expected = (1 / log2(13) + 1 / log2(5)) / (1 + 1 / log2(3) + 1 / log2(4))
    assert ndcg(RANKS, N_TARGETS, None)[1] == pytest.approx(expected)


def test_average_precision_divides_by_the_smaller_of_targets_and_k() -> None:
    first, second, none = mean_average_precision(RANKS, N_TARGETS, 10)
    assert first == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert second == pytest.approx((1 / 4) / 3)
    assert np.isnan(none)
    assert mean_average_precision(RANKS, N_TARGETS, 2)[1] == 0.0
    assert mean_average_precision(RANKS, N_TARGETS, 1)[0] == 1.0


def test_mrr_is_that_of_the_best_ranked_target() -> None:
    np.testing.assert_allclose(mrr(RANKS, N_TARGETS, 10), [1.0, 0.25, np.nan])
    np.testing.assert_allclose(mrr(RANKS, N_TARGETS, 3), [1.0, 0.0, np.nan])


def test_hit_rate_of_one_target_is_recall() -> None:
    ranks = np.array([[1], [5], [11]])
    np.testing.assert_array_equal(hit_rate(ranks, np.ones(3, dtype=int), 5), [1.0, 1.0, 0.0])
    np.testing.assert_allclose(hit_rate(RANKS, N_TARGETS, 3), [1.0, 0.0, np.nan])


def test_the_table_labels_every_cut_off_and_takes_tensors() -> None:
    table = metric_table(torch.tensor(RANKS), torch.tensor(N_TARGETS), [5, 10])
    labels = [f"{name}@{k}" for k in (5, 10) for name in ("NDCG", "HR", "MAP", "MRR")]
    assert [metric.label for metric in table] == [*labels, "NDCG"]
    by_name = {metric.name: values for metric, values in table.items()}
    np.testing.assert_array_equal(by_name["MAP@5"], mean_average_precision(RANKS, N_TARGETS, 5))
    np.testing.assert_array_equal(by_name["NDCG"], ndcg(RANKS, N_TARGETS, None))


def test_what_was_ranked_stands_before_the_measure_in_a_metrics_label() -> None:
    labels = [Metric(lists, "NDCG", 5).label for lists in ("catalogue", "uniform", "popularity")]
    assert labels == ["NDCG@5", "list NDCG@5", "popular list NDCG@5"]


def test_the_lines_of_a_metric_without_a_cut_off_are_not_those_of_one_with() -> None:
    table = pl.DataFrame(
        [("uniform", "NDCG", None), ("uniform", "NDCG", 5), ("catalogue", "NDCG", 5)],
        schema=METRIC, orient="row",
    )  # fmt: skip
    assert metrics_in(table) == [Metric(*row) for row in table.rows()]
    for metric in metrics_in(table):
        assert Metric(*metric.lines(table).row(0)) == metric
        assert len(metric.lines(table)) == 1


def test_impossible_ranks_raise() -> None:
    with pytest.raises(ValueError, match="more than n_targets"):
        ndcg(np.array([[1, 2]]), np.array([1]), 5)
    with pytest.raises(ValueError, match="negative"):
        ndcg(np.array([[-1]]), np.array([1]), 5)
    with pytest.raises(ValueError, match="do not fit"):
        ndcg(np.array([1, 2]), np.array([1, 1]), 5)
    with pytest.raises(ValueError, match="at least 1"):
        mrr(np.array([[1]]), np.array([1]), 0)


def random_ranks(n_users: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct ranks of 1..6 targets per user, 0 padded, in random order."""
    draws = np.random.default_rng(1)
    ranks = np.argsort(draws.random((n_users, n_items)), axis=1)[:, :6] + 1
    n_targets = draws.integers(1, 7, n_users)
    ranks[np.arange(6) >= n_targets[:, None]] = 0
    return ranks, n_targets


def test_metrics_equal_ranx_and_differ_only_where_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """ranx divides average precision by n_targets, not by min(n_targets, k): so scaled here."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling ranx takes a minute, running it none
    from ranx import Qrels, Run, evaluate

    n_items = 40
    ranks, n_targets = random_ranks(60, n_items)
    qrels = Qrels({f"u{u}": {f"i{r}": 1 for r in row if r} for u, row in enumerate(ranks)})
    # The item at rank r is called i<r>, so that the run is the same list for everyone.
    run = Run({f"u{u}": {f"i{r}": 1.0 / r for r in range(1, n_items + 1)} for u in range(60)})
    for k in (1, 3, 5, 10, n_items):
        names = [f"ndcg@{k}", f"hit_rate@{k}", f"mrr@{k}", f"map@{k}"]
        theirs = evaluate(qrels, run, names, return_mean=False)
        ours = [
            ndcg(ranks, n_targets, k),
            hit_rate(ranks, n_targets, k),
            mrr(ranks, n_targets, k),
            mean_average_precision(ranks, n_targets, k) * np.minimum(n_targets, k) / n_targets,
        ]
        order = [list(qrels.qrels).index(f"u{u}") for u in range(60)]
        for name, values in zip(names, ours, strict=True):
            np.testing.assert_allclose(values, theirs[name][order], atol=1e-9, err_msg=name)
    full = evaluate(qrels, run, "ndcg", return_mean=False)
    np.testing.assert_allclose(ndcg(ranks, n_targets, None), full[order], atol=1e-9)


def test_coverage_is_the_share_of_items_in_any_list() -> None:
    assert coverage(np.array([[1, 2, 0], [2, 5, 0]]), n_items=10) == 0.3


def test_gini_is_zero_when_all_alike_and_near_one_for_a_single_item() -> None:
    assert gini(np.array([[1, 2], [3, 4]]), n_items=4) == pytest.approx(0.0)
    assert gini(np.array([[2], [2]]), n_items=10) == pytest.approx(0.9)  # 1 - 1/n
    # Counts 0, 1, 3: mean absolute difference (1+3+2)*2/9 over twice the mean 4/3 is 1/2.
    assert gini(np.array([[1, 2], [2, 2]]), n_items=3) == pytest.approx(0.5)
    assert np.isnan(gini(np.zeros((2, 3), dtype=int), n_items=4))


def test_popularity_and_long_tail_are_means_over_each_list() -> None:
    popularity = np.array([1000, 50, 10, 40, 1, 2])  # column 0 is padding
    lists = np.array([[1, 2, 0], [4, 3, 5], [0, 0, 0]])
    np.testing.assert_allclose(
        average_popularity(lists, popularity), [30.0, 43 / 3, np.nan], equal_nan=True
    )
    # A head of 40 % of five items: 1 and 3.
    np.testing.assert_allclose(long_tail_share(lists, popularity, head=0.4), [0.5, 2 / 3, np.nan])
    np.testing.assert_allclose(long_tail_share(lists, popularity, head=0.2), [0.5, 1.0, np.nan])
