"""What a text says about a user, times what texts say about items: gate * k_u.k_i.

k_u = z P + A(z) from the z-scored text vector z, k_i = (z_i W) * c from the item's z-scored text.
P and W start as one and the same projection (principal components of the texts), so that the
knowledge term starts as the similarity of text and item in the encoder's own space, and learning
only corrects it: with a few thousand fit examples, matrices learned from scratch overfit within an
epoch, and a zero-initialised adapter leaves the text unread.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from recalign.recommender.adapters import ExpertsAdapter, GatedAdapter, scale_output
from recalign.recommender.zscores import CLIP, mean_std, z_scored

ADAPTER_SHARE = 0.1
"""Standard deviation of A(z) at the start, relative to that of z P."""
ALIKE = 1e-4
"""Standard deviation of k_u.k_i before scaling below which the texts differ by rounding alone."""
MANY = 200_000_000
"""Products of texts and items, 4 bytes each; of more than so many no matrix is made."""
MATRIX_RATE = 1 / 30
"""Matrices learn this much slower than gate and component weights: at the full rate they overfit
the embedded run's 9,000 examples within one epoch."""


class KnowledgeTerm(nn.Module):
    """See the module's docstring. Text vectors have e values, knowledge h.

    Buffers: item_text [I+1, e] (z-scored, row 0 zero), text_mean and text_std [e] of the fit texts.
    """

    def __init__(self, text: int, hidden: int, n_items: int, adapter: str, dropout: float) -> None:
        super().__init__()
        self.register_buffer("item_text", torch.zeros(n_items + 1, text))
        self.register_buffer("text_mean", torch.zeros(text))
        self.register_buffer("text_std", torch.zeros(text))
        self.user_map = nn.Parameter(torch.zeros(text, hidden))  # P
        self.item_map = nn.Parameter(torch.zeros(text, hidden))  # W
        self.component = nn.Parameter(torch.ones(hidden))  # c
        self.gate = nn.Parameter(torch.zeros(()))
        kind = ExpertsAdapter if adapter == "experts" else GatedAdapter
        self.adapter = kind(text, hidden, hidden, dropout)
        self.input_dropout = nn.Dropout(dropout)
        self._item_knowledge: Tensor | None = None

    def train(self, mode: bool = True) -> Self:
        """Switch mode; what was computed from the old weights is forgotten."""
        self._item_knowledge = None
        return super().train(mode)

    def user_knowledge(self, text_vectors: Tensor) -> Tensor:
        """k_u [..., h] of raw text vectors [..., e]."""
        z = (text_vectors - self.get_buffer("text_mean")) / self.get_buffer("text_std")
        z = self.input_dropout(z.clamp(-CLIP, CLIP))
        return z @ self.user_map + self.adapter(z)

    def item_knowledge(self) -> Tensor:
        """gate * k_i [I+1, h]; remembered outside training."""
        if self.training or self._item_knowledge is None:
            weights = self.item_map * (self.component * self.gate)
            knowledge = self.get_buffer("item_text") @ weights
            if self.training:
                return knowledge
            self._item_knowledge = knowledge.detach()
        return self._item_knowledge

    def knowledge_of(self, items: Tensor) -> Tensor:
        """gate * k_i [..., h] of these items; in training only they are computed."""
        if not self.training:
            return self.item_knowledge()[items]
        return self.get_buffer("item_text")[items] @ (self.item_map * (self.component * self.gate))

    @torch.no_grad()
    def start(self, item_text: Tensor, texts: Tensor, gate: float) -> None:
        """Fill the buffers from item_text [I+1, e] and the fit texts [n, e]; then P = W = principal
        components of the texts, scaled so that k_u.k_i has unit variance before the gate; as they
        are where all texts are alike."""
        mean, std = mean_std(texts)
        self.get_buffer("text_mean").copy_(mean)
        self.get_buffer("text_std").copy_(std)
        z_items = z_scored(item_text)
        self.get_buffer("item_text").copy_(z_items)
        z = ((texts - mean) / std).clamp(-CLIP, CLIP)
        components = torch.linalg.eigh((z.T @ z).double())[1][:, -len(self.component) :].float()
        few = z[:: max(1, len(z) // 2000)]
        spread = _spread(few @ components, z_items @ components)
        alike = spread < ALIKE  # scaled up, rounding errors would drown the sequence model
        projection = components if alike else components / spread**0.5
        self.user_map.copy_(projection)
        self.item_map.copy_(projection)
        self.gate.fill_(gate)
        self.eval()
        wanted = ADAPTER_SHARE * float((few @ projection).std())
        given = float(self.adapter(few).std())
        if not alike and given > 0:
            scale_output(self.adapter, wanted / given)


def _spread(left: Tensor, right: Tensor) -> float:
    """Standard deviation of all a.b, of a in left [n, h] and b in right [m, h]."""
    n = len(left) * len(right)
    if n <= MANY:
        return float((left @ right.T).std())
    left, right = left.double(), right.double()
    mean = left.sum(0) @ right.sum(0) / n
    squares = ((left.T @ left) * (right.T @ right)).sum()  # sum of (a.b)^2
    return float(((squares - n * mean.square()) / (n - 1)).clamp(min=0).sqrt())


def parameter_groups(term: KnowledgeTerm, learning_rate: float) -> list[dict[str, Any]]:
    """For AdamW: gate and component weights at the full rate, undecayed; matrices slowly."""
    slow = learning_rate * MATRIX_RATE
    few, maps = [term.gate, term.component], [term.user_map, term.item_map]
    return [
        {"params": few, "lr": learning_rate, "weight_decay": 0.0},
        {"params": maps, "lr": slow, "weight_decay": 0.0},  # decay would undo the similarity
        {"params": list(term.adapter.parameters()), "lr": slow},
    ]
