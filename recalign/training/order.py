"""The order of training rows: shuffled, but rows of similar length share a batch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from recalign.seeding import stream

BATCHES_SORTED_TOGETHER = 32


class LengthGroupedOrder(Sampler[int]):
    """Row numbers of one epoch; a function of seed and epoch alone, so that a resume finds it.

    Rows are shuffled, sorted by length within stretches of BATCHES_SORTED_TOGETHER batches, and
    the batches shuffled again; the rows that fill no whole batch come last. Equal lengths keep the
    shuffled order.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch, also in a resumed run."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = stream(self.seed, "order", self.epoch)
        order = random.permutation(len(self.lengths))
        n_batches = len(order) // self.batch_size
        whole = order[: n_batches * self.batch_size]
        stretch = BATCHES_SORTED_TOGETHER * self.batch_size
        for start in range(0, len(whole), stretch):
            part = whole[start : start + stretch]
            whole[start : start + stretch] = part[self.lengths[part].argsort(kind="stable")]
        batches = whole.reshape(n_batches, self.batch_size)[random.permutation(n_batches)]
        yield from batches.flatten().tolist()
        yield from order[len(whole) :].tolist()
