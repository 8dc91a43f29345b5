"""GRU4Rec (Hidasi et al., arXiv 1511.06939) on the items' side and losses that SASRec has.

Left out: session-parallel batches and the paper's ranking losses; what differs from SASRec is the
recurrence alone, so that two judges differ in how they read a history and in nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recalign.oracle.dropout import DropoutMasks
from recalign.oracle.sequence_model import SequenceModel


class GRU4Rec(SequenceModel):
    """Gated recurrent layers over item vectors; `config.blocks` counts the layers."""

    def _add_layers(self) -> None:
        hidden = self.config.hidden
        layers = [nn.GRU(hidden, hidden, batch_first=True) for _ in range(self.config.blocks)]
        self.layers = nn.ModuleList(layers)
        self.final_norm = nn.LayerNorm(hidden)

    def all_states(self, histories: Tensor, matrix: Tensor, masks: DropoutMasks | None) -> Tensor:
        """As in SequenceModel; no state reads the padding behind it."""
        self.check_width(histories)
        x = F.embedding(histories, matrix) * self.config.hidden**0.5
        for layer in self.layers:
            x = x if masks is None else x * masks.of(x)
            x = layer(x)[0]
        normed: Tensor = self.final_norm(x)
        return normed

    def states(self, histories: Tensor, lengths: Tensor, matrix: Tensor | None = None) -> Tensor:
        """As in SequenceModel."""
        matrix = self.item_matrix() if matrix is None else matrix
        found = self.all_states(histories, matrix, None)
        rows = torch.arange(len(found), device=found.device)
        return found[rows, lengths.clamp(min=1) - 1]
