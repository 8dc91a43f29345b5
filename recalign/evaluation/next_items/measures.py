"""Everything that is measured of next items, one value per case (NaN: undefined for this case)."""

import numpy as np
import polars as pl
import torch

from recalign.evaluation.next_items.cases import Cases
from recalign.evaluation.next_items.outcomes import Outcomes
from recalign.metric_columns import CATALOGUE, Metric
from recalign.metrics import average_popularity, hit_rate, long_tail_share, mrr, ndcg
from recalign.ranking import row_chunks, top_items

AVERAGE_POPULARITY = Metric(CATALOGUE, "average popularity")
LONG_TAIL_SHARE = Metric(CATALOGUE, "long-tail share")
POPULAR = 0.05
"""Share of the catalogue that counts as popular in "popular hallucination"."""


def ranking_measures(outcomes: Outcomes, list_length: int) -> dict[Metric, np.ndarray]:
    """HR@{1,5,10}, NDCG@{5,10} and MRR of every ranking: float64 [N] each.

    HR at a cut-off as long as the list is left out: it would be 1 for everyone.
    """
    table: dict[Metric, np.ndarray] = {}
    for lists, ranks in outcomes.ranks.items():
        column, one = ranks[:, None], np.ones(len(ranks), dtype=np.int64)
        for k in (1, 5, 10):
            if lists == CATALOGUE or k < list_length:
                table[Metric(lists, "HR", k)] = hit_rate(column, one, k)
        for k in (5, 10):
            table[Metric(lists, "NDCG", k)] = ndcg(column, one, k)
        table[Metric(lists, "MRR")] = mrr(column, one, max(1, int(ranks.max(initial=1))))
    return table


def bias_measures(
    outcomes: Outcomes, cases: Cases, popularity: np.ndarray
) -> dict[Metric, np.ndarray]:
    """How popular what is recommended is; popularity [I+1]: interactions in history windows."""
    logs = np.log1p(popularity)
    own = logs[cases.targets]
    table = {
        Metric(lists, "popularity lift"): np.where(firsts > 0, logs[firsts] - own, np.nan)
        for lists, firsts in outcomes.firsts.items()
        if lists != CATALOGUE
    }
    if outcomes.recommended is not None:
        heads = outcomes.recommended
        table[Metric(CATALOGUE, "popularity lift")] = average_popularity(heads, logs) - own
        table[LONG_TAIL_SHARE] = long_tail_share(heads, popularity)
        table[AVERAGE_POPULARITY] = average_popularity(heads, popularity)
    return table


def hallucination_measures(
    outcomes: Outcomes, cases: Cases, neighbours: np.ndarray, popularity: np.ndarray
) -> dict[Metric, np.ndarray]:
    """What stands wrongly in the first place: a near text, or a popular item.

    neighbours int64 [N, n]: the items whose texts are nearest to each target's, itself aside.
    """
    table: dict[Metric, np.ndarray] = {}
    for lists, firsts in outcomes.firsts.items():
        wrong = outcomes.ranks[lists] != 1
        table[Metric(lists, "wrong")] = wrong.astype(np.float64)
        semantic = (neighbours == firsts[:, None]).any(1)
        popular = long_tail_share(firsts[:, None], popularity, POPULAR) == 0
        for name, kind in (("semantic", semantic), ("popular", popular)):
            table[Metric(lists, f"{name} hallucination")] = np.where(wrong, kind, np.nan)
            table[Metric(lists, f"{name} error")] = (wrong & kind).astype(np.float64)
    return table


def nearest_items(vectors: np.ndarray, targets: np.ndarray, n: int) -> np.ndarray:
    """The `n` items whose text vectors have the highest cosine with each target's: int64 [N, n].

    vectors [I+1, e]; the target itself and padding (row 0) are left out.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = torch.from_numpy(vectors / np.maximum(lengths, 1e-12))
    items, rows = np.unique(targets, return_inverse=True)
    own = torch.from_numpy(items)
    near = [
        top_items(unit[own[s]] @ unit.T, own[s, None], n) for s in row_chunks(len(own), len(unit))
    ]
    return torch.cat(near).numpy()[rows]


def answer_measures(
    shown: str,
    items: np.ndarray,
    texts: list[str],
    cases: Cases,
    candidates: np.ndarray | None = None,
) -> dict[Metric, np.ndarray]:
    """Free answers: items [N] that they name (0: none), their normalised texts, all cases counted.

    shown: what the prompts showed to pick from, whose titles are candidates [N, C]; "catalogue"
    where they showed none.
    """
    before = cases.sequences.slices(cases.users, np.zeros_like(cases.positions), cases.positions)
    given = pl.DataFrame([cases.users, texts], {"user_index": pl.Int64, "text": pl.String})
    table = {
        Metric(shown, "answer HR", 1): items == cases.targets,
        Metric(shown, "valid"): items > 0,
        Metric(shown, "already seen"): np.array(
            [item in own for item, own in zip(items, before, strict=True)], dtype=bool
        ),
        Metric(shown, "repeated"): ~given.to_struct().is_first_distinct().to_numpy(),
    }
    if candidates is not None:
        inside = (candidates == items[:, None]) & (candidates > 0)
        table[Metric(shown, "in candidates")] = inside.any(1)
    return {metric: values.astype(np.float64) for metric, values in table.items()}
