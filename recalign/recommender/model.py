"""A frozen sequential recommender plus what the text says: score = s.V + b + gate * k_u.k_i."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recalign.config import RecommenderConfig
from recalign.recommender.examples import ItemVectors
from recalign.recommender.knowledge import KnowledgeTerm
from recalign.seeding import derive_seed

CHUNK = 1 << 22
"""Scores computed at once (floats)."""


@dataclass(frozen=True)
class Shape:
    """The sizes that decide the tensors: vector e, state d, adapter, its width and n_items."""

    text: int
    state: int
    hidden: int
    n_items: int
    adapter: str


class KnowledgeRecommender(KnowledgeTerm):
    """See the module's docstring; the sequence model arrives as tensors and is never trained.

    Buffers, beside those of `KnowledgeTerm`: item_matrix V [I+1, d], item_bias b [I+1].
    """

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__(shape.text, shape.hidden, shape.n_items, shape.adapter, dropout)
        self.shape = shape
        self.register_buffer("item_matrix", torch.zeros(shape.n_items + 1, shape.state))
        self.register_buffer("item_bias", torch.zeros(shape.n_items + 1))

    def base_scores(self, states: Tensor) -> Tensor:
        """The sequence model's own scores [B, I+1] of states [B, d]."""
        return states @ self.get_buffer("item_matrix").T + self.get_buffer("item_bias")

    @torch.no_grad()
    def user_vectors(self, states: Tensor, text_vectors: Tensor, read: Tensor) -> Tensor:
        """[B, d + h + 1], whose products with `item_vectors` are the scores of one text each.

        states [B, d], text_vectors [B, e], read bool [B]: False scores without the text.
        """
        knowledge = self.user_knowledge(text_vectors) * read[:, None]
        return torch.cat([states, knowledge, torch.ones_like(states[:, :1])], 1)

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """[I+1, d + h + 1]; see `user_vectors`."""
        matrix, bias = self.get_buffer("item_matrix"), self.get_buffer("item_bias")
        return torch.cat([matrix, self.item_knowledge(), bias[:, None]], 1)

    @torch.no_grad()
    def scores(self, states: Tensor, text_vectors: Tensor) -> Tensor:
        """Scores [B, S, I+1] of every item for each user's S texts.

        states [B, d], text_vectors [B, S, e]. Column 0 is padding and means nothing.
        """
        if self.training:
            self.eval()
        n_users, n_texts = text_vectors.shape[:2]
        items = self.item_knowledge()
        scores = states.new_empty(n_users, n_texts, len(items))
        step = max(1, CHUNK // (max(1, n_texts) * len(items)))
        for start in range(0, n_users, step):
            rows = slice(start, start + step)
            torch.matmul(self.user_knowledge(text_vectors[rows]), items.T, out=scores[rows])
            scores[rows] += self.base_scores(states[rows])[:, None]
        return scores

    @torch.no_grad()
    def list_scores(self, states: Tensor, items: Tensor, text_vectors: Tensor | None) -> Tensor:
        """Scores [B, S, L] of the items [B, L] for each row's S texts [B, S, e]; None: [B, 1, L]
        of the sequence model alone. states [B, d]."""
        if self.training:
            self.eval()
        matrix, bias = self.get_buffer("item_matrix"), self.get_buffer("item_bias")
        base = (matrix[items] @ states[:, :, None])[:, :, 0] + bias[items]
        if text_vectors is None:
            return base[:, None]
        told = self.user_knowledge(text_vectors) @ self.item_knowledge()[items].transpose(1, 2)
        return told + base[:, None]


def start_model(
    config: RecommenderConfig, items: ItemVectors, texts: Tensor
) -> KnowledgeRecommender:
    """The recommender before training, on the CPU.

    texts [n, e]: the fit texts, which give mean, standard deviation and principal components.
    """
    item_text = torch.from_numpy(items.text).float()
    n_items, width = item_text.shape[0] - 1, item_text.shape[1]
    hidden = min(config.hidden, width)
    shape = Shape(width, items.matrix.shape[1], hidden, n_items, config.adapter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "recommender", "weights"))
        model = KnowledgeRecommender(shape, config.dropout)
    model.get_buffer("item_matrix").copy_(items.matrix.detach())
    model.get_buffer("item_bias").copy_(items.bias.detach())
    model.start(item_text, texts, config.gate)
    return model
