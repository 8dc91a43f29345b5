"""SASRec (Kang and McAuley, arXiv 1808.09781) with pre-norm blocks, item text and an output bias.

Left out: dropout on attention weights (its gain is within noise, and it forbids the fused kernel).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recalign.config.oracle import OracleConfig
from recalign.oracle.dropout import DropoutMasks
from recalign.seeding import derive_seed

SIMD = 16  # MKL takes twice as long for one product of 150 columns as for three of 50
NEVER = -1e4  # bias of the padding item: finite, so that no arithmetic on scores turns it into NaN


class Block(nn.Module):
    """Causal self-attention and a two-layer network of width d, each after a layer norm."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.network_norm = nn.LayerNorm(hidden)
        self.network_in = nn.Linear(hidden, hidden)
        self.network_out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, masks: DropoutMasks | None) -> Tensor:
        """x [B, L, d] -> [B, L, d]; right padding needs no mask, as no real query looks at it."""
        q, k, v = (self._by_head(part) for part in self._project(self.attention_norm(x)))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = _add(x, self.attention_out(mixed.transpose(1, 2).flatten(2)), masks)
        return self._network(x, masks)

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The output at position lengths-1 alone: x [B, L, d], lengths [B] >= 1 -> [B, d]."""
        hidden = x.shape[2]
        normed = self.attention_norm(x)
        ends = (lengths - 1)[:, None, None].expand(-1, 1, hidden)
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        q = F.linear(normed.gather(1, ends), weight[:hidden], bias[:hidden])
        k, v = F.linear(normed, weight[hidden:], bias[hidden:]).chunk(2, 2)
        inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        q, k, v = (self._by_head(part) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=inside[:, None, None, :])
        ended = x.gather(1, ends) + self.attention_out(mixed.transpose(1, 2).flatten(2))
        return self._network(ended, None)[:, 0]

    def _network(self, x: Tensor, masks: DropoutMasks | None) -> Tensor:
        inner = F.relu(self.network_in(self.network_norm(x)))
        return _add(x, self.network_out(inner), masks)

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, each [B, L, d]."""
        joint = self.query_key_value
        if joint.out_features % SIMD == 0:
            return joint(x).unflatten(2, (3, -1)).unbind(2)
        weights, biases = joint.weight.chunk(3), joint.bias.chunk(3)
        return [F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def _by_head(self, x: Tensor) -> Tensor:
        """[B, L, d] -> [B, heads, L, d / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _add(x: Tensor, branch: Tensor, masks: DropoutMasks | None) -> Tensor:
    """Residual sum, with dropout on the branch while training."""
    return x + branch if masks is None else torch.addcmul(x, branch, masks.of(branch))


class SASRec(nn.Module):
    """Scores of all items after a history: states(history) @ item_matrix().T + bias.

    bias [n_items + 1] is NEVER at padding. item_text [n_items + 1, e] (row 0 is padding) are frozen
    vectors; they are z-scored per column over the items, and a learned projection of them is added
    to each item's own vector.
    """

    text: Tensor | None

    def __init__(self, config: OracleConfig, n_items: int, item_text: Tensor | None) -> None:
        super().__init__()
        self.config = config
        self.n_items = n_items
        if item_text is not None and len(item_text) != n_items + 1:
            raise ValueError(f"{len(item_text)} rows of item text for {n_items} items and padding")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "oracle weights"))
            self.items = nn.Parameter(torch.randn(n_items + 1, config.hidden) * 0.02)
            self.positions = nn.Parameter(torch.randn(config.max_length, config.hidden) * 0.02)
            self.bias = nn.Parameter(torch.zeros(n_items + 1))
            blocks = [Block(config.hidden, config.heads) for _ in range(config.blocks)]
            self.blocks = nn.ModuleList(blocks)
            self.final_norm = nn.LayerNorm(config.hidden)
            if item_text is not None:
                width = item_text.shape[1]
                projection = torch.randn(width, config.hidden) * 0.02 / width**0.5
                self.text_projection = nn.Parameter(projection)
        text = None if item_text is None else _standardise(item_text)
        self.register_buffer("text", text, persistent=False)
        with torch.no_grad():
            self.items[0] = 0
            self.bias[0] = NEVER

    def item_matrix(self, own: Tensor | None = None, items: Tensor | slice = slice(None)) -> Tensor:
        """Vectors of all items [n_items + 1, d]; row 0 (padding) is zero.

        With `items` [n] only theirs [n, d], with `own` [n, d] for self.items[items].
        """
        own = self.items[items] if own is None else own
        if self.text is None:
            return own
        return torch.addmm(own, self.text[items], self.text_projection)

    def all_states(self, histories: Tensor, matrix: Tensor, masks: DropoutMasks | None) -> Tensor:
        """States after every position, for training.

        histories [B, L] right-padded items, L <= max_length; matrix = item_matrix() -> [B, L, d].
        """
        x = self._embed(histories, matrix)
        if masks is not None:
            x = x * masks.of(x)
        for block in self.blocks:
            x = block(x, masks)
        return self.final_norm(x)

    def states(self, histories: Tensor, lengths: Tensor, matrix: Tensor | None = None) -> Tensor:
        """State after the last item of each history, [B, d].

        histories [B, L] right padded, lengths [B] (an empty history reads one padding item);
        `matrix` spares computing item_matrix() again. The last block runs for one query only.
        """
        lengths = lengths.clamp(min=1)
        x = self._embed(histories, self.item_matrix() if matrix is None else matrix)
        for block in self.blocks[:-1]:
            x = block(x, None)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        ended: Tensor = self.final_norm(last.last(x, lengths))
        return ended

    def _embed(self, histories: Tensor, matrix: Tensor) -> Tensor:
        width = histories.shape[1]
        if width > self.config.max_length:
            raise ValueError(f"histories of {width} items, max_length is {self.config.max_length}")
        scaled = F.embedding(histories, matrix) * self.config.hidden**0.5
        return scaled + self.positions[:width]


def _standardise(item_text: Tensor) -> Tensor:
    """Columns with mean 0 and deviation 1 over items 1..n; constant columns and row 0 become 0."""
    rows = item_text[1:].float()
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    scored = (rows - mean) / torch.where(deviation > 1e-12, deviation, torch.inf)
    return torch.cat([torch.zeros_like(item_text[:1], dtype=torch.float32), scored])
