"""SASRec (Kang and McAuley, arXiv 1808.09781) with pre-norm blocks, item text and an output bias.

Left out: dropout on attention weights (its gain is within noise, and it forbids the fused kernel).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recalign.oracle.dropout import DropoutMasks
from recalign.oracle.sequence_model import SequenceModel

SIMD = 16  # MKL takes twice as long for one product of 150 columns as for three of 50


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


class SASRec(SequenceModel):
    """Blocks of causal self-attention over item vectors and learned positions."""

    learns_positions = True

    def _add_layers(self) -> None:
        config = self.config
        self.positions = nn.Parameter(torch.randn(config.max_length, config.hidden) * 0.02)
        blocks = [Block(config.hidden, config.heads) for _ in range(config.blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = nn.LayerNorm(config.hidden)

    def all_states(self, histories: Tensor, matrix: Tensor, masks: DropoutMasks | None) -> Tensor:
        """As in SequenceModel."""
        x = self._embed(histories, matrix)
        if masks is not None:
            x = x * masks.of(x)
        for block in self.blocks:
            x = block(x, masks)
        return self.final_norm(x)

    def states(self, histories: Tensor, lengths: Tensor, matrix: Tensor | None = None) -> Tensor:
        """As in SequenceModel; the last block runs for one query only."""
        lengths = lengths.clamp(min=1)
        x = self._embed(histories, self.item_matrix() if matrix is None else matrix)
        for block in self.blocks[:-1]:
            x = block(x, None)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        ended: Tensor = self.final_norm(last.last(x, lengths))
        return ended

    def _embed(self, histories: Tensor, matrix: Tensor) -> Tensor:
        self.check_width(histories)
        scaled = F.embedding(histories, matrix) * self.config.hidden**0.5
        return scaled + self.positions[: histories.shape[1]]
