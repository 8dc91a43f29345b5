"""A frozen sequential recommender plus what the text says: score = s.V + b + gate * k_u.k_i.

k_u = z P + A(z) from the z-scored text vector z, k_i = (z_i W) * c from the item's z-scored text.
P and W start as one and the same projection (principal components of the texts), so that the
knowledge term starts as the similarity of text and item in the encoder's own space, and learning
only corrects it: with a few thousand fit examples, matrices learned from scratch overfit within an
epoch, and a zero-initialised adapter leaves the text unread.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recalign.config import RecommenderConfig
from recalign.recommender.adapters import ExpertsAdapter, GatedAdapter, scale_output
from recalign.recommender.examples import ItemVectors
from recalign.seeding import derive_seed

CLIP = 6.0
"""z-scores beyond this are cut: one odd text must not drown the sequence model."""
ADAPTER_SHARE = 0.1
"""Standard deviation of A(z) at the start, relative to that of z P."""
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


class KnowledgeRecommender(nn.Module):
    """See the module's docstring; the sequence model arrives as tensors and is never trained.

    Buffers: item_matrix V [I+1, d], item_bias b [I+1], item_text [I+1, e] (z-scored, row 0 zero),
    text_mean and text_std [e] of the fit texts.
    """

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        for name, size in {
            "item_matrix": (shape.n_items + 1, shape.state),
            "item_bias": (shape.n_items + 1,),
            "item_text": (shape.n_items + 1, shape.text),
            "text_mean": (shape.text,),
            "text_std": (shape.text,),
        }.items():
            self.register_buffer(name, torch.zeros(size))
        self.user_map = nn.Parameter(torch.zeros(shape.text, shape.hidden))  # P
        self.item_map = nn.Parameter(torch.zeros(shape.text, shape.hidden))  # W
        self.component = nn.Parameter(torch.ones(shape.hidden))  # c
        self.gate = nn.Parameter(torch.zeros(()))
        adapter = ExpertsAdapter if shape.adapter == "experts" else GatedAdapter
        self.adapter = adapter(shape.text, shape.hidden, shape.hidden, dropout)
        self.input_dropout = nn.Dropout(dropout)
        self._item_knowledge: Tensor | None = None

    def train(self, mode: bool = True) -> "KnowledgeRecommender":
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
    mean, std = _mean_std(texts)
    model.get_buffer("text_mean").copy_(mean)
    model.get_buffer("text_std").copy_(std)
    item_mean, item_std = _mean_std(item_text[1:])
    z_items = ((item_text - item_mean) / item_std).clamp(-CLIP, CLIP)
    z_items[0] = 0
    model.get_buffer("item_text").copy_(z_items)
    _start_as_similarity(model, ((texts - mean) / std).clamp(-CLIP, CLIP), config.gate)
    return model


def _mean_std(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per column; 1 where a column hardly varies."""
    std = vectors.std(0, correction=0)
    return vectors.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))


@torch.no_grad()
def _start_as_similarity(model: KnowledgeRecommender, z: Tensor, gate: float) -> None:
    """P = W = principal components of z [n, e], scaled so that k_u.k_i has unit variance."""
    z_items = model.get_buffer("item_text")
    components = torch.linalg.eigh((z.T @ z).double())[1][:, -model.shape.hidden :].float()
    few = z[:: max(1, len(z) // 2000)]
    spread = float(((few @ components) @ (z_items @ components).T).std())
    projection = components / max(spread, 1e-12) ** 0.5
    model.user_map.copy_(projection)
    model.item_map.copy_(projection)
    model.gate.fill_(gate)
    model.eval()
    wanted = ADAPTER_SHARE * float((few @ projection).std())
    scale_output(model.adapter, wanted / max(float(model.adapter(few).std()), 1e-12))
