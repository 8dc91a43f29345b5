"""Demonstrations as packed rows, and the batches of each epoch."""

from collections.abc import Sequence

import numpy as np

from recalign.seeding import stream
from recalign.training.packing import PackedRow

MAX_COMPLETIONS = 8  # of one prompt in one row; more start another row
SORTED_BATCHES = 20  # rows of so many batches are sorted by length, to save padding


def rows_of(prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> list[PackedRow]:
    """Group the completions of equal prompts, in order of first appearance."""
    rows: dict[tuple[int, ...], list[PackedRow]] = {}
    for prompt, completion in zip(prompts, completions, strict=True):
        same = rows.setdefault(tuple(prompt), [])
        if not same or len(same[-1].completions) == MAX_COMPLETIONS:
            same.append(PackedRow(list(prompt), []))
        same[-1].completions.append(completion)
    return [row for same in rows.values() for row in same]


def batches(rows: Sequence[PackedRow], batch_size: int, epoch: int, seed: int) -> list[np.ndarray]:
    """Row numbers of every batch of an epoch: about `batch_size` completions, alike in length.

    A function of its arguments alone, so a run that resumes needs no state of a generator.
    """
    rng = stream(seed, "bootstrap", "order", epoch)
    lengths = np.array([row.n_tokens for row in rows])
    per_row = sum(len(row.completions) for row in rows) / len(rows)
    size = max(1, round(batch_size / per_row))
    order = rng.permutation(len(rows))
    found = []
    for start in range(0, len(rows), size * SORTED_BATCHES):
        block = order[start : start + size * SORTED_BATCHES]
        block = block[np.argsort(lengths[block], kind="stable")]
        found += [block[i : i + size] for i in range(0, len(block), size)]
    return [found[i] for i in rng.permutation(len(found))]
