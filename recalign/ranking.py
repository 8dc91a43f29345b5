"""Exact ranks of target items in a full catalogue, and the head of the list, in bounded memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 20  # scores held twice at a time; more only falls out of the cache
GROUP = 64  # neighbouring items of which only the best is looked at first


@torch.no_grad()
def target_ranks(scores: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
    """Rank of each target among all items its user may be shown, counted from 1.

    scores [B, I+1], any real dtype; targets [B, T] item indices, 0 is padding; seen [B, L] item
    indices that are never shown, 0 is padding. Returns int64 [B, T], 0 at padding.

    A seen item is left out of the ranking unless it is a target of its row; column 0 never ranks.
    Ties count against the target: rank = 1 + (others scored at least as high). Targets of one row
    that tie with each other take successive ranks in their order, so that no two share a rank. A
    target repeated within a row counts once, at its first place; its copies get 0, so count
    targets as `(ranks > 0).sum(1)` where repeats may occur.

    ValueError: a score is NaN, or the shapes do not fit.
    """
    if not (scores.ndim == targets.ndim == seen.ndim == 2):
        raise ValueError("scores, targets and seen must have two dimensions")
    if not (len(scores) == len(targets) == len(seen)):
        raise ValueError(f"rows differ: {len(scores)}, {len(targets)} and {len(seen)}")
    if not scores.is_floating_point() or scores.shape[1] > 1 << 24:
        scores = scores.double()
    ranks = torch.zeros_like(targets, dtype=torch.int64)
    for rows in row_chunks(len(scores), max(scores.shape[1], targets.shape[1] ** 2)):
        ranks[rows] = _ranks_of_rows(scores[rows], targets[rows].long(), seen[rows].long())
    return ranks


def _ranks_of_rows(scores: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
    """`target_ranks` of a few rows: NaN marks what never ranks, as NaN >= x is false."""
    _refuse_nan(scores)
    # One row with many targets must not cost the others as much as it does: the widest first, each
    # place is looked at in the rows alone that reach it.
    places = torch.arange(1, targets.shape[1] + 1, device=targets.device)
    reach = ((targets > 0) * places).amax(1)
    order = reach.argsort(descending=True, stable=True)
    n_rows = (reach[:, None] >= places).sum(0).tolist()
    ranks = torch.zeros_like(targets)
    targets = targets[order, : n_rows.index(0) if 0 in n_rows else None]
    copies = (targets[:, :, None] == targets[:, None, :]).tril(diagonal=-1).any(2)
    targets = targets.masked_fill(copies, 0)  # an item counts at its first place in the row
    shown = scores.index_select(0, order)
    own = shown.gather(1, targets)
    shown.scatter_(1, seen[order], torch.nan)
    shown.scatter_(1, targets, own)
    shown[:, 0] = torch.nan
    # Comparing into a buffer of the scores' type and adding it up is eight times as fast as
    # adding up booleans; a float32 sum of ones is exact up to 2**24 items.
    above = torch.empty_like(shown, dtype=torch.promote_types(scores.dtype, torch.float32))
    found = torch.zeros_like(targets)
    for place, n in enumerate(n_rows[: targets.shape[1]]):
        torch.ge(shown[:n], own[:n, place : place + 1], out=above[:n])
        found[:n, place] = above[:n].sum(1).long()
    # Every target counted itself and all tied targets: take off those that come after it.
    tied = (own[:, :, None] == own[:, None, :]) & (targets[:, None, :] > 0)
    found -= tied.triu(diagonal=1).sum(2)
    ranks[order, : targets.shape[1]] = found * (targets > 0)
    return ranks


def _refuse_nan(scores: Tensor) -> None:
    """ValueError that names the first row with a NaN."""
    # One pass that adds is far cheaper than isnan; infinities of both signs need the second look.
    ranked = scores[:, 1:]
    if ranked.sum().isnan() and ranked.isnan().any():
        row = int(ranked.isnan().any(1).nonzero()[0])
        raise ValueError(f"a score is NaN (row {row} of its chunk): the model diverged")


@torch.no_grad()
def top_items(scores: Tensor, seen: Tensor, k: int) -> Tensor:
    """The k best unseen items of each row, best first: int64 [B, k], 0 where none is left.

    scores [B, I+1], seen [B, L] (0 padded). ValueError: a score is NaN.
    """
    k = min(k, scores.shape[1] - 1)
    best = torch.zeros(len(scores), k, dtype=torch.int64, device=scores.device)
    for rows in row_chunks(len(scores), scores.shape[1]):
        best[rows] = best_items(scores[rows].clone(), seen[rows], k)[1]
    return best


@torch.no_grad()
def best_items(scores: Tensor, seen: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The scores [B, k] of the k best unseen items of each row, and the items, as `top_items`.

    `scores` is used up: what is not to be listed becomes -inf in place, as a copy would take half
    as long as the product that the scores come from.
    """
    _refuse_nan(scores)
    scores.scatter_(1, seen.long(), -torch.inf)
    scores[:, 0] = -torch.inf
    values, items = largest(scores, k)
    return values, items.masked_fill(values == -torch.inf, 0)


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `topk` of each row: only the k groups with the largest maxima can hold the k largest."""
    n_groups = scores.shape[1] // GROUP
    if n_groups < 4 * k:
        return scores.topk(k, dim=1)
    whole = n_groups * GROUP
    grouped = scores[:, :whole].unflatten(1, (n_groups, GROUP))
    first = GROUP * grouped.amax(2).topk(k, dim=1).indices
    places = torch.arange(GROUP, device=scores.device)
    columns = (first[:, :, None] + places).flatten(1)
    rest = torch.arange(whole, scores.shape[1], device=scores.device)
    columns = torch.cat([columns, rest.expand(len(scores), -1)], 1)
    values, chosen = scores.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, chosen)


def row_chunks(n_rows: int, width: int, least: int = 1) -> Iterator[slice]:
    """Slices of rows that together hold at most CHUNK_ELEMENTS elements (at least `least` rows)."""
    step = max(least, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
