"""What every sequential recommender here shares: the items' side, and what a history is asked."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recalign.config.oracle import OracleConfig
from recalign.oracle.dropout import DropoutMasks
from recalign.seeding import derive_seed

NEVER = -1e4  # bias of the padding item: finite, so that no arithmetic on scores turns it into NaN


class SequenceModel(nn.Module, ABC):
    """Scores of all items after a history: states(history) @ item_matrix().T + bias.

    bias [n_items + 1] is NEVER at padding. item_text [n_items + 1, e] (row 0 is padding) are frozen
    vectors; they are z-scored per column over the items, and a learned projection of them is added
    to each item's own vector. An architecture adds layers that turn item vectors into states.

    longest: how many items of a history are read at most, its latest ones; max_length until a fit
    of a model that learns positions finds how many of them are worth reading.
    """

    text: Tensor | None
    learns_positions = False
    """Whether each position of a history has weights of its own."""

    def __init__(self, config: OracleConfig, n_items: int, item_text: Tensor | None) -> None:
        super().__init__()
        self.config = config
        self.n_items = n_items
        self.longest = config.max_length
        if item_text is not None and len(item_text) != n_items + 1:
            raise ValueError(f"{len(item_text)} rows of item text for {n_items} items and padding")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "oracle weights"))
            self.items = nn.Parameter(torch.randn(n_items + 1, config.hidden) * 0.02)
            self._add_layers()
            self.bias = nn.Parameter(torch.zeros(n_items + 1))
            if item_text is not None:
                width = item_text.shape[1]
                projection = torch.randn(width, config.hidden) * 0.02 / width**0.5
                self.text_projection = nn.Parameter(projection)
        text = None if item_text is None else _standardise(item_text)
        self.register_buffer("text", text, persistent=False)
        with torch.no_grad():
            self.items[0] = 0
            self.bias[0] = NEVER

    @abstractmethod
    def _add_layers(self) -> None:
        """Make the architecture's own weights, by torch's global generator."""

    @abstractmethod
    def all_states(self, histories: Tensor, matrix: Tensor, masks: DropoutMasks | None) -> Tensor:
        """States after every position, for training.

        histories [B, L] right-padded items, L <= max_length; matrix = item_matrix() -> [B, L, d].
        """

    @abstractmethod
    def states(self, histories: Tensor, lengths: Tensor, matrix: Tensor | None = None) -> Tensor:
        """State after the last item of each history, [B, d].

        histories [B, L] right padded, lengths [B] (an empty history reads one padding item);
        `matrix` spares computing item_matrix() again.
        """

    def item_matrix(self, own: Tensor | None = None, items: Tensor | slice = slice(None)) -> Tensor:
        """Vectors of all items [n_items + 1, d]; row 0 (padding) is zero.

        With `items` [n] only theirs [n, d], with `own` [n, d] for self.items[items].
        """
        own = self.items[items] if own is None else own
        if self.text is None:
            return own
        return torch.addmm(own, self.text[items], self.text_projection)

    def check_width(self, histories: Tensor) -> None:
        """ValueError: histories [B, L] are longer than the model reads."""
        width = histories.shape[1]
        if width > self.config.max_length:
            raise ValueError(f"histories of {width} items, max_length is {self.config.max_length}")


def _standardise(item_text: Tensor) -> Tensor:
    """Columns with mean 0 and deviation 1 over items 1..n; constant columns and row 0 become 0."""
    rows = item_text[1:].float()
    deviation, mean = torch.std_mean(rows, dim=0, correction=0)
    scored = (rows - mean) / torch.where(deviation > 1e-12, deviation, torch.inf)
    return torch.cat([torch.zeros_like(item_text[:1], dtype=torch.float32), scored])
