"""Which metrics and rows a leaderboard shows: metrics that every cell has, a run's own row."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.rosepo import variants
from recalign.config import RosePOConfig, ShownCell
from recalign.errors import UserError
from recalign.metric_columns import NDCG_AT_10, RERANKED_NDCG, Metric
from recalign.report.rosepo_opening import HELPFUL
from tasks.leaderboard import FinishedCell, configured_row, shown_metrics
from tests.report.sample_pages import cell, table

HIT = Metric("catalogue", "HR", 10)


def finished(stage, *metrics):
    """A cell whose results have these metrics."""
    report: Any = SimpleNamespace(manifest=SimpleNamespace(stage=stage))
    results = table(*(cell("hard, eps", one, 0.1) for one in metrics))
    shown = ShownCell(setting="a", seed=0)
    return FinishedCell(shown, report, report, results, "hard, eps", 0.1, NDCG_AT_10, {})


def test_only_what_every_cell_has_is_shown_the_one_to_compare_by_first():
    assert shown_metrics([finished("report", HIT, NDCG_AT_10)]) == [NDCG_AT_10, HIT]
    cells = [
        finished("comparison", NDCG_AT_10, HIT, HELPFUL),
        finished("comparison", HIT, HELPFUL),  # an LLM asked with candidates ranks lists alone
    ]
    assert shown_metrics(cells) == [HELPFUL, HIT]
    assert shown_metrics(cells[::-1]) == [HELPFUL, HIT]


def test_cells_that_share_no_metric_are_refused():
    cells = [finished("report", NDCG_AT_10, HIT), finished("report", RERANKED_NDCG)]
    with pytest.raises(UserError, match="these runs have no metric in common"):
        shown_metrics(cells)


@pytest.mark.parametrize(
    ("estimator", "row"),
    [("constant", "self_hard, constant eps"), ("none", "self_hard, no eps"), ("pairwise", "")],
)
def test_a_rosepo_run_is_about_the_row_that_it_was_configured_for(estimator, row):
    """Personal smoothing needs no mark: it is the row that a page is about anyway."""
    config = RosePOConfig.model_validate({"smoothing": {"estimator": estimator}})
    kept = config.recommendations.compare(variants(config)).identity()["rows"]
    assert configured_row(kept) == row
