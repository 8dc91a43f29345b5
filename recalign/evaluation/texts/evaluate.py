"""Metrics per user of whatever gives scores to the catalogue, such as a reader of texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalign.evaluation.candidate_lists import CandidateLists, ranks_in_lists
from recalign.evaluation.texts.scores import ScoreCases
from recalign.metric_columns import CATALOGUE, Metric
from recalign.metrics import metric_table
from recalign.ranking import target_ranks, top_items
from recalign.sequences import Before

CHUNK_SCORES = 1 << 23  # scores held at a time: 32 MB in float32


@dataclass(frozen=True)
class UserTargets:
    """The users of an evaluation, in one order for all rows, and what is ranked for them.

    users [U] user_index; targets [U, T] and seen [U, L] item indices, 0 padded;
    drawn: how the candidate lists are drawn, and ranked: what else is ranked, see
    `metric_columns.STARTS`.
    """

    users: np.ndarray
    targets: Tensor
    seen: np.ndarray | Before
    lists: CandidateLists | None = None
    drawn: str = "uniform"
    ranked: str = CATALOGUE

    def __post_init__(self) -> None:
        if len(self.users) != len(self.targets):
            raise ValueError("users and targets differ in length")
        if without := int((self.targets <= 0).all(1).sum()):
            raise ValueError(f"{without} users have no target: leave them out, and count them")

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate_row` measures, for the users in their order.

    values: float64 [U] of each metric. recommended int64 [U, k] is the head of every user's list
    (of the first sample where there are several), for coverage, Gini and popularity.
    """

    values: Mapping[Metric, np.ndarray]
    recommended: np.ndarray


@torch.no_grad()
def evaluate_row(
    scores: ScoreCases,
    cases: UserTargets,
    cutoffs: list[int],
    top_k: int = 10,
    at_once: int | None = None,
) -> Evaluated:
    """Full-catalogue metrics with seen items filtered, and metrics over the candidate lists.

    `scores` is asked for chunks of users of a size that bounds memory, of `at_once` at most. A user
    with several samples gets the mean of each metric over them: what one reasoning is worth on
    average.
    """
    measured: list[dict[Metric, np.ndarray]] = []
    heads: list[np.ndarray] = []
    for where, given in _chunks(scores, len(cases), at_once or len(cases)):
        n_users, n_samples, width = given.shape
        flat = given.reshape(n_users * n_samples, width)
        tables = torch.from_numpy(cases.seen[where]), cases.targets[where]
        seen, targets = (table.to(given.device) for table in tables)
        wanted, hidden = (one.repeat_interleave(n_samples, 0) for one in (targets, seen))
        ranks = target_ranks(flat, wanted, hidden)
        table = metric_table(ranks.cpu(), (ranks > 0).sum(1).cpu(), cutoffs, cases.ranked)
        if cases.lists is not None:
            lists = cases.lists.of(where, n_samples, given.device)
            table |= list_metrics(flat, lists, cutoffs, cases.drawn)
        measured.append({m: v.reshape(n_users, n_samples).mean(1) for m, v in table.items()})
        heads.append(top_items(given[:, 0], seen, top_k).cpu().numpy())
    values = {name: np.concatenate([one[name] for one in measured]) for name in measured[0]}
    return Evaluated(values, np.concatenate(heads))


def list_metrics(
    scores: Tensor, lists: CandidateLists, cutoffs: list[int], drawn: str
) -> dict[Metric, np.ndarray]:
    """Metrics over `lists` [B, C], from full scores [B, I+1].

    Cut-offs as long as the list are left out: every list would be a hit.
    """
    ranks = ranks_in_lists(scores.gather(1, lists.items), lists).cpu()
    reached = [k for k in cutoffs if k < lists.items.shape[1]]
    return metric_table(ranks, lists.n_targets.cpu(), reached, drawn)


def _chunks(scores: ScoreCases, n_users: int, most: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of `most` users or fewer and their scores, sized after the first user's."""
    width = scores(slice(0, 1)).numel()
    step = max(1, min(most, CHUNK_SCORES // width))
    for start in range(0, n_users, step):
        where = slice(start, min(start + step, n_users))
        yield where, scores(where)
