"""Training windows over the sequences, and length-bucketed batches cut from them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalign.sequences import Sequences

LENGTHS_TRIED = 9  # each costs one ranking of the validation users
BUCKET_BATCHES = 32  # batches that are sorted by length together: little padding, still random


@dataclass(frozen=True)
class Windows:
    """Stretches of `lengths[w]` targets; the inputs are the items one place before each.

    `firsts[w]` is the index in `Sequences.items` of the first input.
    """

    firsts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.firsts)


@dataclass(frozen=True)
class Batch:
    """histories [B, L] right padded; the flat places [N] of real positions; targets [N]."""

    histories: Tensor
    places: Tensor
    targets: Tensor


def trained_lengths(sequences: Sequences, max_length: int) -> list[int]:
    """From how many positions a quarter of the users train to how many any does, in a few steps.

    At most max_length, rising by equal ratios; users with fewer than two items train none.
    """
    inputs = np.sort(np.minimum(sequences.lengths - 1, max_length))
    inputs = inputs[inputs > 0]
    quarter = -(-len(inputs) // 4)
    steps = np.geomspace(inputs[-quarter], inputs[-1], LENGTHS_TRIED).round()
    return sorted({int(length) for length in steps})


def training_windows(sequences: Sequences, max_length: int) -> Windows:
    """Windows of at most max_length targets that cover all positions of every user from 1 once.

    They are cut from the end backwards, so that a user's latest window is full.
    """
    n_targets = np.maximum(sequences.lengths - 1, 0)
    n_windows = -(-n_targets // max_length)
    users = np.repeat(np.arange(sequences.n_users), n_windows)
    back = np.arange(len(users)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    ends = n_targets[users] - back * max_length
    starts = np.maximum(ends - max_length, 0)
    return Windows(sequences.offsets[users] + starts, ends - starts)


def shuffled_batches(
    sequences: Sequences, windows: Windows, size: int, draws: np.random.Generator
) -> Iterator[Batch]:
    """All windows once, `size` at a time, windows of like length together, in random order."""
    order = draws.permutation(len(windows))
    group = size * BUCKET_BATCHES
    for start in range(0, len(order), group):
        part = order[start : start + group]
        order[start : start + group] = part[np.argsort(windows.lengths[part], kind="stable")]
    starts = np.arange(0, len(order), size)
    for start in draws.permutation(starts):
        yield _batch(sequences, windows, order[start : start + size])


def _batch(sequences: Sequences, windows: Windows, chosen: np.ndarray) -> Batch:
    lengths = windows.lengths[chosen]
    columns = np.arange(lengths.max())
    inside = columns < lengths[:, None]
    rows = np.where(inside, windows.firsts[chosen, None] + columns, 0)
    places = np.flatnonzero(inside)
    return Batch(
        histories=torch.from_numpy(np.where(inside, sequences.items[rows], 0)),
        places=torch.from_numpy(places),
        targets=torch.from_numpy(sequences.items[rows.ravel()[places] + 1]),
    )
