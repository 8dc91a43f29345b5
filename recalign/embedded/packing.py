"""Rows that hold a prompt once and all its completions behind it: [prompt | first | second | ...].

A completion sees the prompt and itself, and its positions count on from the prompt's end, so
every completion is computed as if it stood alone, at a fraction of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalign.seeding import stream

MAX_COMPLETIONS = 8  # of one prompt in one row; more start another row
SORTED_BATCHES = 20  # rows of so many batches are sorted by length, to save padding
IGNORED = -100  # label of padding


@dataclass(frozen=True)
class Row:
    """One prompt and its completions, each ending in EOS, as token ids."""

    prompt: list[int]
    completions: list[list[int]]

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True)
class Batch:
    """B padded rows of T tokens and W predicted tokens."""

    ids: Tensor  # [B, T]
    positions: Tensor  # [B, T] place in its own text
    segments: Tensor  # [B, T] 0: prompt (and padding, which comes last), 1...: completions
    predictors: Tensor  # [B, W] column whose state predicts the label
    labels: Tensor  # [B, W] IGNORED at padding


def rows_of(prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> list[Row]:
    """Group the completions of equal prompts, in order of first appearance."""
    rows: dict[tuple[int, ...], list[Row]] = {}
    for prompt, completion in zip(prompts, completions, strict=True):
        same = rows.setdefault(tuple(prompt), [])
        if not same or len(same[-1].completions) == MAX_COMPLETIONS:
            same.append(Row(list(prompt), []))
        same[-1].completions.append(completion)
    return [row for same in rows.values() for row in same]


def pack(rows: Sequence[Row], device: str | torch.device) -> Batch:
    """Padded tensors of `rows`."""
    columns: list[tuple[list[int], ...]] = []
    for row in rows:
        n = len(row.prompt)
        ids, positions, segments = list(row.prompt), list(range(n)), [0] * n
        predictors: list[int] = []
        for number, completion in enumerate(row.completions, start=1):
            start, length = len(ids), len(completion) - 1  # the EOS is predicted, never read
            ids += completion[:-1]
            positions += range(n, n + length)
            segments += [number] * length
            predictors += [n - 1, *range(start, start + length)]
        labels = [token for completion in row.completions for token in completion]
        columns.append((ids, positions, segments, predictors, labels))
    fills = (0, 0, 0, 0, IGNORED)
    parts = zip(zip(*columns, strict=True), fills, strict=True)
    return Batch(*(_padded(lists, fill, device) for lists, fill in parts))


def _padded(lists: Sequence[list[int]], fill: int, device: str | torch.device) -> Tensor:
    table = np.full((len(lists), max(map(len, lists))), fill, dtype=np.int64)
    for row, values in zip(table, lists, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(table).to(device)


def batches(rows: Sequence[Row], batch_size: int, epoch: int, seed: int) -> list[np.ndarray]:
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
