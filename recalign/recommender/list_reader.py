"""How a recommender of either kind scores the lists of some users, with texts and without."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from recalign.lists import Lists
from recalign.recommender.model import KnowledgeRecommender
from recalign.recommender.prm import Reranker


@dataclass(frozen=True)
class OrderedLists:
    """N lists of L items in the order that a sequence model gives them.

    On one device: owners int64 [N], items int64 [N, L], states [U, d] of the owners, scores [N, L]
    by the sequence model, places int64 [N, L] of each item by them, from 0.
    """

    owners: Tensor
    items: Tensor
    states: Tensor
    scores: Tensor
    places: Tensor

    @classmethod
    def by(cls, lists: Lists, states: Tensor, item_matrix: Tensor, item_bias: Tensor) -> Self:
        """Ordered by states [U, d] times item_matrix [I+1, d] plus item_bias [I+1]."""
        owners, items = (
            torch.from_numpy(one).to(states.device) for one in (lists.owners, lists.items)
        )
        scores = torch.empty(items.shape, dtype=states.dtype, device=states.device)
        for rows in torch.arange(len(items), device=states.device).split(1 << 14):
            own = item_matrix[items[rows]] @ states[owners[rows]][:, :, None]
            scores[rows] = own[:, :, 0] + item_bias[items[rows]]
        places = scores.argsort(stable=True, dim=1, descending=True).argsort(1)
        return cls(owners, items, states, scores, places)


@dataclass(frozen=True)
class ListReader:
    """A recommender, and the lists that it is asked about by their rows (a slice or indices)."""

    model: KnowledgeRecommender | Reranker
    lists: OrderedLists

    def read(self, rows: slice | Tensor, texts: Tensor) -> Tensor:
        """Scores [B, S, L] of these lists, each read with S texts [B, S, e]."""
        return self._scores(rows, texts.to(self.lists.items.device))

    def alone(self, rows: slice | Tensor) -> Tensor:
        """Scores [B, 1, L] of these lists without any text."""
        return self._scores(rows, None)

    def _scores(self, rows: slice | Tensor, texts: Tensor | None) -> Tensor:
        lists = self.lists
        if isinstance(self.model, Reranker):
            return self.model.scores(lists.items[rows], lists.places[rows], texts)
        states = lists.states[lists.owners[rows]]
        return self.model.list_scores(states, lists.items[rows], texts)
