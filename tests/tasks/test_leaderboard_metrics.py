"""Which metrics and rows a leaderboard shows: metrics that every cell has, a run's own row."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.rosepo import variants
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import fingerprints
from recalign.artifacts.store import Store
from recalign.config import RosePOConfig, ShownCell
from recalign.errors import UserError
from recalign.metric_columns import NDCG_AT_10, RERANKED_NDCG, Metric
from recalign.report.rosepo_opening import HELPFUL
from recalign.schemas import RESULTS
from tasks.leaderboard import FinishedCell, configured_row, judge, shown_metrics
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


@pytest.mark.parametrize("configured", [0, 1])
def test_a_cell_is_judged_by_the_row_that_its_run_was_configured_for(tmp_path, configured):
    """Unmarked it is the personal eps, whose results stand second."""
    store, labels = Store(tmp_path), ["SFT", "hard, eps"]
    rows: list[dict[str, object]] = [{"label": label} for label in labels]
    if configured == 0:
        rows[0]["configured"] = True
    ends = [
        store.commit(store.draft(Identity("alignment", 1, {"n": n}, {}, {}), {})) for n in (0, 1)
    ]
    inputs = {f"row_{n}": end.reference for n, end in enumerate(ends)}
    draft = store.draft(Identity("comparison", 1, {"rows": rows}, fingerprints(inputs), {}), inputs)
    RESULTS.write(table(*(cell(label, HELPFUL, 0.1) for label in labels)), draft)
    draft.tell({"validation": {"SFT": 0.1, "hard, eps": 0.2}})
    found = judge(store, ShownCell(setting="a", seed=0), store.commit(draft))
    assert (found.row, found.validation) == (labels[configured], [0.1, 0.2][configured])
    assert ends[configured].manifest.fingerprint in found.stands_on
    assert ends[1 - configured].manifest.fingerprint not in found.stands_on
