"""PRM, the Personalised Re-ranking Model (arXiv 1904.06813), with KAR's knowledge (2306.10933).

Every item of a list is [its embedding, the mean embedding of its attributes, what the item's text
says (32), what was written about the user (32)]; a place in the list that is re-ranked is added, a
Transformer sees the whole list, and each item gets a score. Both kinds of text go through KAR's
adaptor of shared and own experts. The list that is re-ranked is in the order of the sequence model.

KAR only puts the knowledge beside the item, which takes many lists to learn from. By default the
similarity of text and item (`KnowledgeTerm`) is added to the score.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recalign.recommender.adapters import SharedExperts
from recalign.recommender.knowledge import KnowledgeTerm
from recalign.recommender.zscores import CLIP, mean_std, z_scored

KNOWLEDGE_WIDTH = 32  # KAR
EMBEDDING = 32  # KAR
HEADS = 4
CHUNK = 1 << 22
"""Values (floats) of one layer at once."""
USER, ITEM = 0, 1  # sources of knowledge


@dataclass(frozen=True)
class PRMShape:
    """The sizes that decide the tensors: text vectors e, hidden, layers, list length, catalogue."""

    text: int
    hidden: int
    layers: int
    length: int
    n_items: int
    n_attributes: int
    most_attributes: int
    """Of one item."""
    adapter: str
    """Of the knowledge term; empty: there is none."""


class PRM(nn.Module):
    """See the module's docstring. Buffers: item_text [I+1, e] (z-scored), attributes [I+1, A] (0
    padded), text_mean and text_std [e] of the fit texts."""

    def __init__(self, shape: PRMShape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("item_text", torch.zeros(shape.n_items + 1, shape.text))
        numbers = torch.zeros(shape.n_items + 1, shape.most_attributes, dtype=torch.int64)
        self.register_buffer("attributes", numbers)
        self.register_buffer("text_mean", torch.zeros(shape.text))
        self.register_buffer("text_std", torch.ones(shape.text))
        self.items = nn.Embedding(shape.n_items + 1, EMBEDDING, padding_idx=0)
        self.values = nn.Embedding(shape.n_attributes + 1, EMBEDDING, padding_idx=0)
        self.knowledge = SharedExperts(shape.text, KNOWLEDGE_WIDTH, 2, dropout)
        self.inner = nn.Linear(2 * EMBEDDING + 2 * KNOWLEDGE_WIDTH, shape.hidden)
        self.places = nn.Embedding(shape.length, shape.hidden)
        layer = nn.TransformerEncoderLayer(
            shape.hidden, HEADS, 2 * shape.hidden, dropout, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.term: KnowledgeTerm | None = None
        if shape.adapter:
            width = min(shape.hidden, shape.text)
            self.term = KnowledgeTerm(shape.text, width, shape.n_items, shape.adapter, dropout)
        self.outer = nn.Sequential(
            nn.Linear(shape.hidden, shape.hidden), nn.ReLU(), nn.Linear(shape.hidden, 1)
        )

    def forward(self, items: Tensor, places: Tensor, texts: Tensor | None) -> Tensor:
        """Scores [B, S, L] of lists: items and places [B, L]; each is read with S texts [B, S, e].

        None: without any, [B, 1, L]. What is known of the items is computed once for all texts.
        """
        known = self._known(items)
        if texts is None:
            user = known.new_zeros(len(items), 1, KNOWLEDGE_WIDTH)
        else:
            z = (texts - self.get_buffer("text_mean")) / self.get_buffer("text_std")
            user = self.knowledge(z.clamp(-CLIP, CLIP), USER)
        sizes = (-1, user.shape[1], items.shape[1], -1)
        both = torch.cat([known[:, None].expand(sizes), user[:, :, None].expand(sizes)], 3)
        inner = self.inner(both) + self.places(places)[:, None]
        scores = self.outer(self.layers(inner.flatten(0, 1)))[:, :, 0].unflatten(0, sizes[:2])
        if self.term is None or texts is None:
            return scores
        return scores + self.term.user_knowledge(texts) @ self.term.knowledge_of(items).mT

    def _known(self, items: Tensor) -> Tensor:
        """Embedding, attributes and text of the items [B, L]: [B, L, 96]."""
        numbers = self.get_buffer("attributes")[items]
        named = self.values(numbers).sum(2) / (numbers > 0).sum(2, keepdim=True).clamp(min=1)
        told = self.knowledge(self.get_buffer("item_text")[items], ITEM)
        return torch.cat([self.items(items), named, told], 2)

    @torch.no_grad()
    def scores(self, items: Tensor, places: Tensor, texts: Tensor) -> Tensor:
        """As `forward`, a few lists at a time."""
        n_texts, length = texts.shape[1], items.shape[1]
        scores = texts.new_empty(len(items), n_texts, length)
        each = length * (self.shape.text + n_texts * 4 * self.shape.hidden)
        step = max(1, CHUNK // each)
        for start in range(0, len(items), step):
            rows = slice(start, start + step)
            scores[rows] = self(items[rows], places[rows], texts[rows])
        return scores


class Reranker(nn.Module):
    """One PRM that reads texts, and one, fitted alike, that is given none."""

    def __init__(self, shape: PRMShape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.reading = PRM(shape, dropout)
        self.bare = PRM(replace(shape, adapter=""), dropout)

    @torch.no_grad()
    def scores(self, items: Tensor, places: Tensor, texts: Tensor | None) -> Tensor:
        """Scores [B, S, L] of lists [B, L] with S texts each [B, S, e]; None: [B, 1, L] without."""
        if self.training:
            self.eval()
        if texts is None:
            return self.bare(items, places, None)
        return self.reading.scores(items, places, texts)


def start_prm(model: PRM, item_text: Tensor, texts: Tensor, attributes: Tensor, gate: float) -> PRM:
    """The model with its buffers: item_text [I+1, e], the fit texts [n, e], attributes [I+1, A]."""
    mean, std = mean_std(texts)
    known = z_scored(item_text)
    given = {"text_mean": mean, "text_std": std, "item_text": known, "attributes": attributes}
    for name, value in given.items():
        model.get_buffer(name).copy_(value)
    if model.term is not None:
        model.term.start(item_text, texts, gate)
    return model
