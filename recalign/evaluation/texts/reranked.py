"""Metrics per user over the lists that are re-ranked (KAR's protocol)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recalign.errors import UserError
from recalign.evaluation.texts.evaluate import Evaluated, UserTargets, evaluate_row
from recalign.evaluation.texts.scores import Reader, ScoreCases
from recalign.lists import Lists
from recalign.metric_columns import RERANKED

HEAD = 5
"""Items of a list that count as recommended."""
AT_ONCE = 1 << 15
"""Items of the lists that are scored at a time. Their scores are few, but reading a list takes a
vector of each of its texts and items."""


@dataclass(frozen=True)
class RerankedLists:
    """The lists of `users` [U] that hold a positive item: the cases; and all lists of each user.

    n_lists [U] counts those without a positive item too: they have the value 0 in every metric, as
    in KAR. Where KAR has the mean over lists, each user counts once here.
    """

    users: np.ndarray
    lists: Lists
    n_lists: np.ndarray

    @classmethod
    def of(cls, users: np.ndarray, lists: Lists) -> "RerankedLists":
        kept = lists.with_positives()
        if not len(kept):
            raise UserError(
                f"none of {len(lists)} lists to re-rank has an item that belongs first: lower "
                "splits.positive_above"
            )
        return cls(users, kept, lists.counts(len(users)))

    @cached_property
    def cases(self) -> UserTargets:
        """Each list as a catalogue of its own items, numbered from 1."""
        seen = np.zeros((len(self.lists), 1), dtype=np.int64)
        targets = torch.from_numpy(self.lists.targets())
        return UserTargets(self.lists.owners, targets, seen, ranked=RERANKED)

    def plain(self, item_scores: Tensor) -> ScoreCases:
        """Scores that do not depend on the user, such as popularity: item_scores [I+1]."""
        items = torch.from_numpy(self.lists.items)
        return padded(lambda where: item_scores[items[where]][:, None])

    def evaluate(self, scores: ScoreCases, cutoffs: list[int]) -> Evaluated:
        """Means over each user's lists: float64 [U] of each metric.

        recommended: the head of each list in its new order, int64 [N, HEAD].
        """
        length = self.lists.items.shape[1]
        shorter = [k for k in cutoffs if k < length]  # of a whole list every target is a hit
        at_once = max(1, AT_ONCE // length)
        each = evaluate_row(scores, self.cases, shorter, HEAD, at_once)
        totals = {
            metric: np.bincount(self.lists.owners, values, minlength=len(self.users))
            for metric, values in each.values.items()
        }
        means = {metric: total / np.maximum(self.n_lists, 1) for metric, total in totals.items()}
        items = np.take_along_axis(self.lists.items, each.recommended - 1, axis=1)
        return Evaluated(means, items)


def read_padded(read: Reader) -> Reader:
    """What reads texts of lists, with scores as `padded` has them."""
    return lambda cases, texts: torch.nn.functional.pad(read(cases, texts), (1, 0))


def padded(scores: ScoreCases) -> ScoreCases:
    """Scores [B, S, L] of list items as those of a catalogue [B, S, L + 1], column 0 unranked."""
    return lambda where: torch.nn.functional.pad(scores(where), (1, 0))
