"""Adam and weight average on a step's own item rows: its cost does not grow with the catalogue.

A step with sampled negatives has gradients for a few thousand items. Zero gradients of a million
others, their moments and their average would cost ten times the step itself.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recalign.oracle.sequence_model import SequenceModel

EPS = 1e-8
SETTLED = 1 << 16  # items settled at once, to need no second matrix
LEAST_DECAY = 1e-30  # its logarithm is finite, and yet nothing of the past is left


@dataclass(frozen=True)
class Taken:
    """Item weights of one step: vectors [n, d] and bias [n], which collect gradients.

    `named` are the step's tensors of items, as rows of the two; `items` says which item each row
    is, a tensor [n] or the slice of all.
    """

    items: Tensor | slice
    vectors: Tensor
    bias: Tensor
    named: list[Tensor]


class ItemRows:
    """Vectors and output biases of single items: taken for a step, moved by it, averaged.

    The moments of an item not taken stand still (as in torch's SparseAdam), the average of its
    weights does not: the decay it missed is caught up when it is taken again, and in `settle`.
    """

    def __init__(
        self,
        model: SequenceModel,
        average: SequenceModel,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        self._weights = (model.items.detach(), model.bias.detach())
        self._averages = (average.items, average.bias)
        self._moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in self._weights]
        self._betas = betas
        self._weight_decay = weight_decay
        # log of the product of all decays so far, now and when each item was last averaged
        self._log_decay = 0.0
        self._log_decay_at = torch.zeros_like(model.bias.detach(), dtype=torch.float64)

    def take(self, named: list[Tensor]) -> Taken:
        """Copies of the rows of all items that the tensors `named` hold."""
        flat = torch.cat([tensor.flatten() for tensor in named])
        items, rows = flat.unique(return_inverse=True)
        shaped = rows.split([tensor.numel() for tensor in named])
        numbered = [row.view_as(tensor) for row, tensor in zip(shaped, named, strict=True)]
        vectors, bias = (w.index_select(0, items).requires_grad_() for w in self._weights)
        return Taken(items, vectors, bias, numbered)

    @torch.no_grad()
    def move(self, taken: Taken, step: int, rate: float, decay: float) -> None:
        """One AdamW step, number `step` from 1, on what was taken; then the average by `decay`."""
        items = taken.items
        missed = (self._log_decay - self._log_decay_at[items]).exp().float()
        self._log_decay += math.log(max(decay, LEAST_DECAY))
        self._log_decay_at[items] = self._log_decay
        first, second = self._betas
        for place, row in enumerate((taken.vectors, taken.bias)):
            assert row.grad is not None
            average = self._averages[place]
            averaged = _faded(average[items], row, missed)
            means, squares = self._moments[place]  # AdamW: Loshchilov and Hutter, arXiv 1711.05101
            mean = means[items].lerp_(row.grad, 1 - first)
            square = squares[items].lerp_(row.grad**2, 1 - second)
            row.mul_(1 - rate * self._weight_decay)
            scale = (square / (1 - second**step)).sqrt_().add_(EPS)
            row.addcdiv_(mean, scale, value=-rate / (1 - first**step))
            means[items], squares[items] = mean, square
            self._weights[place][items] = row
            average[items] = averaged.lerp_(row, 1 - decay)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring the average of every item up to date: before it is read, or stored."""
        for start in range(0, len(self._log_decay_at), SETTLED):
            part = slice(start, start + SETTLED)
            missed = (self._log_decay - self._log_decay_at[part]).exp_().float()
            for weight, average in zip(self._weights, self._averages, strict=True):
                average[part] = _faded(average[part], weight[part], missed)
        self._log_decay_at.zero_()
        self._log_decay = 0.0

    def state(self) -> list[Tensor]:
        """What a checkpoint must hold beside weights and averages; settled."""
        return [moment for both in self._moments for moment in both]

    def restore(self, state: list[Tensor]) -> None:
        """Take up `state()` again."""
        for moment, stored in zip(self.state(), state, strict=True):
            moment.copy_(stored)


def _faded(average: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """weight + kept * (average - weight): an average after steps in which the weight stood still.

    average, weight [n, d] or [n]; kept [n].
    """
    return torch.addcmul(weight, kept.view(-1, *[1] * (weight.ndim - 1)), average - weight)
