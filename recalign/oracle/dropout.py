"""Dropout masks cut from a pool: drawing them afresh is a sixth of a training step on a CPU."""

import torch
from torch import Tensor

from recalign.seeding import derive_seed

POOL_ELEMENTS = 1 << 22


class DropoutMasks:
    """Masks with values 0 and 1/(1-rate), cut at random places from a pool drawn anew each epoch.

    Everything is decided by (seed, epoch), so that a run resumed at an epoch repeats itself.
    """

    def __init__(self, rate: float, seed: int, epoch: int, device: torch.device) -> None:
        self.rate = rate
        self._draws = torch.Generator().manual_seed(derive_seed(seed, "dropout", epoch))
        self._device = device
        self._pool = torch.empty(0, device=device)

    def of(self, like: Tensor) -> Tensor:
        """A mask of the shape of `like`, a view into the pool; two masks may overlap by chance."""
        if like.numel() * 2 > len(self._pool):
            self._fill(max(POOL_ELEMENTS, 2 * like.numel()))
        room = len(self._pool) - like.numel()
        start = int(torch.randint(room + 1, (), generator=self._draws))
        return self._pool[start : start + like.numel()].view(like.shape)

    def _fill(self, n: int) -> None:
        kept = torch.empty(n).bernoulli_(1 - self.rate, generator=self._draws)
        self._pool = (kept / (1 - self.rate)).to(self._device)
