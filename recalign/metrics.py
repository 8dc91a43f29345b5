"""Ranking metrics per user from ranks, of a whole set of lists, and of a score that tells apart.

Ranks are those of `recalign.ranking.target_ranks`: from 1, 0 where there is no target, ties
counted against the target. Every metric of ranks returns float64 [B], one value per user, NaN
where the user has no target: the caller averages. The metrics of lists that are a value per user
are NaN for an empty list. Arrays and CPU tensors are both welcome.
"""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from recalign.metric_columns import CATALOGUE, RERANKED, Metric

if TYPE_CHECKING:
    from torch import Tensor

Numbers: TypeAlias = "np.ndarray | Tensor"

TIE = 1e-5
"""Rewards this close are equal but for rounding: log-probabilities come from float32 scores."""


def ndcg(ranks: Numbers, n_targets: Numbers, k: int | None) -> np.ndarray:
    """Normalised discounted cumulative gain, binary relevance.

    sum over targets with rank <= k of 1/log2(1 + rank), divided by the same sum for the ideal
    ranking, which has min(n_targets, k) ones at its head. k None: no cut-off (full depth).

    ranks [B, T], n_targets [B]. ValueError: a rank is negative, or n_targets below the ranks given.
    """
    found, n, rank = _hits(ranks, n_targets, k)
    gain = (found / np.log2(1.0 + np.where(found, rank, 1))).sum(1)
    discounts = 1.0 / np.log2(np.arange(2.0, n.max(initial=1) + 2))
    ideal_of = np.concatenate(([np.nan], np.cumsum(discounts)))
    return gain / ideal_of[n if k is None else np.minimum(n, k)]


def hit_rate(ranks: Numbers, n_targets: Numbers, k: int) -> np.ndarray:
    """1 where any target is within the first k, else 0; for one target this is recall@k."""
    found, n, _ = _hits(ranks, n_targets, k)
    return np.where(n > 0, found.any(1), np.nan)


def mean_average_precision(ranks: Numbers, n_targets: Numbers, k: int) -> np.ndarray:
    """Average precision at k of each user: MAP@k is its mean.

    sum over hits within k of precision at the hit's rank, divided by min(n_targets, k). Others
    divide by n_targets (ranx, ir_measures, RecTools) or, as `kars_average_precision`, by the hits.
    """
    found, n, rank = _hits(ranks, n_targets, k)
    far = np.iinfo(np.int64).max
    ordered = np.sort(np.where(found, rank, far), axis=1)
    precision = np.arange(1, ordered.shape[1] + 1) / ordered * (ordered < far)
    return precision.sum(1) / np.where(n > 0, np.minimum(n, k), np.nan)


def kars_average_precision(ranks: Numbers, n_targets: Numbers, k: int) -> np.ndarray:
    """Average precision at k divided by the hits within k, as in KAR's code and torchmetrics.

    It says nothing about targets beyond k: one hit at the head is worth as much as k hits. 0
    without a hit.
    """
    found, n, _ = _hits(ranks, n_targets, k)
    whole = np.where(n > 0, np.minimum(n, k), np.nan)
    return mean_average_precision(ranks, n_targets, k) * whole / np.maximum(found.sum(1), 1)


def mrr(ranks: Numbers, n_targets: Numbers, k: int) -> np.ndarray:
    """1 / rank of the best-ranked target, 0 if that rank is above k."""
    found, n, rank = _hits(ranks, n_targets, k)
    best = (found / np.where(found, rank, 1)).max(1, initial=0.0)
    return np.where(n > 0, best, np.nan)


def metric_table(
    ranks: Numbers, n_targets: Numbers, cutoffs: list[int], lists: str = CATALOGUE
) -> dict[Metric, np.ndarray]:
    """NDCG, HR, MAP and MRR at all cut-offs, and NDCG at full depth: float64 [B] each.

    lists: what was ranked, see `metric_columns.STARTS`. In KAR's protocol its MAP stands beside.
    """
    measures = {"NDCG": ndcg, "HR": hit_rate, "MAP": mean_average_precision, "MRR": mrr}
    if lists == RERANKED:
        measures["MAP by hits"] = kars_average_precision
    return {
        Metric(lists, name, k): measure(ranks, n_targets, k)
        for k in cutoffs
        for name, measure in measures.items()
    } | {Metric(lists, "NDCG"): ndcg(ranks, n_targets, None)}


def coverage(recommended: Numbers, n_items: int) -> float:
    """Share of the catalogue that is in at least one list; recommended [B, k], 0 is padding."""
    return float((_times_recommended(recommended, n_items) > 0).mean())


def gini(recommended: Numbers, n_items: int) -> float:
    """Gini coefficient of how often each item is recommended: 0 all alike, towards 1 a single one.

    G = sum_i (2 i - n - 1) x_i / (n sum x), x sorted upwards; items never recommended count.
    """
    times = np.sort(_times_recommended(recommended, n_items)).astype(np.float64)
    if not times.sum():
        return float("nan")
    weights = 2.0 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ times / (n_items * times.sum()))


def average_popularity(recommended: Numbers, popularity: Numbers) -> np.ndarray:
    """Mean popularity of each user's list: float64 [B], NaN for an empty list.

    recommended [B, k] (0 padded); popularity [I+1], e.g. interactions in the training window.
    """
    items = np.asarray(recommended)
    return _mean_over_list(np.asarray(popularity, dtype=np.float64)[items], items > 0)


def long_tail_share(recommended: Numbers, popularity: Numbers, head: float = 0.2) -> np.ndarray:
    """Share of each user's list outside the head: float64 [B], NaN for an empty list.

    The head is the `head` share of the items with the highest popularity [I+1] (column 0 aside),
    rounded up; equal popularity is ordered by item index.
    """
    items, counts = np.asarray(recommended), np.asarray(popularity)
    n_head = int(np.ceil(head * (len(counts) - 1)))
    tail = np.ones(len(counts), dtype=bool)
    tail[1 + np.argsort(-counts[1:], kind="stable")[:n_head]] = False
    return _mean_over_list(tail[items], items > 0)


def auc(estimate: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """P(estimate of a positive > that of a negative), ties half; NaN without either (Bamber 1975).

    sum_ij p_i n_j ([e_i > e_j] + [e_i = e_j] / 2) / (sum p sum n), from the cumulated weights of
    sorted estimates. estimate [m]; positive and negative [..., m]: weights, such as how often
    each entry was drawn. Returns float64 [...].
    """
    order = np.argsort(estimate, kind="stable")
    starts = np.flatnonzero(np.diff(estimate[order], prepend=np.nan) != 0)
    tied = [np.add.reduceat(one[..., order], starts, axis=-1) for one in (positive, negative)]
    below = np.cumsum(tied[1], axis=-1) - tied[1] / 2
    whole = tied[0].sum(-1) * tied[1].sum(-1)
    found = (tied[0] * below).sum(-1) / np.where(whole > 0, whole, 1)
    return np.where(whole > 0, found, np.nan)


def _hits(
    ranks: Numbers, n_targets: Numbers, k: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which targets lie within k [B, T], the numbers of targets [B] and the ranks, all checked."""
    rank, n = np.asarray(ranks), np.asarray(n_targets)
    if rank.ndim != 2 or n.shape != rank.shape[:1]:
        raise ValueError(f"ranks {rank.shape} and n_targets {n.shape} do not fit [B, T] and [B]")
    if k is not None and k < 1:
        raise ValueError("a cut-off k must be at least 1")
    given = rank > 0
    if (rank < 0).any() or (given.sum(1) > n).any():
        raise ValueError("ranks must not be negative, nor more than n_targets")
    return (given if k is None else given & (rank <= k)), n, rank


def _times_recommended(recommended: Numbers, n_items: int) -> np.ndarray:
    """How often each item 1..n_items appears, int64 [n_items]."""
    return np.bincount(np.asarray(recommended).ravel(), minlength=n_items + 1)[1:]


def _mean_over_list(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Row means of `values` [B, k] over `inside`, NaN for rows without any."""
    n = inside.sum(1)
    return np.where(inside, values, 0).sum(1) / np.where(n > 0, n, np.nan)
