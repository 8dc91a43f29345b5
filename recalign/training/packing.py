"""Rows that hold a prompt once and all its completions behind it: [prompt | first | second | ...].

A completion sees the prompt and itself, and its positions count on from the prompt's end, so every
completion is computed as if it stood alone, at a fraction of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # target of what is not trained on, padding above all


@dataclass(frozen=True)
class PackedRow:
    """A prompt and its completions, each with the token that ends it, as token ids."""

    prompt: list[int]
    completions: list[list[int]]

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True)
class PackedBatch:
    """B rows of S completions at most, padded on the right to T tokens and W predicted tokens.

    A completion's last token is predicted and never read, so it is not among the T.
    """

    input_ids: Tensor  # [B, T]
    position_ids: Tensor  # [B, T] place in its own text
    segments: Tensor  # [B, T] 0: prompt, 1..S: completions, -1: padding
    predictors: Tensor  # [B, W] column whose state predicts the target
    targets: Tensor  # [B, W] completion after completion; IGNORED at padding
    lengths: Tensor  # [B, S] targets of each completion


def pack(rows: Sequence[PackedRow], pad_token_id: int = 0) -> PackedBatch:
    """Padded tensors of `rows`."""
    columns: list[tuple[list[int], ...]] = []
    for row in rows:
        n = len(row.prompt)
        ids, positions, segments = list(row.prompt), list(range(n)), [0] * n
        predictors: list[int] = []
        for number, completion in enumerate(row.completions, start=1):
            start, length = len(ids), len(completion) - 1
            ids += completion[:-1]
            positions += range(n, n + length)
            segments += [number] * length
            predictors += [n - 1, *range(start, start + length)]
        targets = [token for completion in row.completions for token in completion]
        lengths = [len(completion) for completion in row.completions]
        columns.append((ids, positions, segments, predictors, targets, lengths))
    fills = (pad_token_id, 0, -1, 0, IGNORED, 0)
    parts = zip(zip(*columns, strict=True), fills, strict=True)
    return PackedBatch(*(_padded(lists, fill) for lists, fill in parts))


def visible(segments: Tensor) -> Tensor:
    """Who may look at whom, bool [B, T, T]: the prompt and one's own completion, never ahead.

    Padding looks at padding only, so that no row of a softmax is empty.
    """
    query, key = segments[:, :, None], segments[:, None, :]
    length = segments.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (((key == 0) & (query >= 0)) | (key == query)) & earlier


def _padded(lists: Sequence[list[int]], fill: int) -> Tensor:
    table = np.full((len(lists), max(map(len, lists))), fill, dtype=np.int64)
    for row, values in zip(table, lists, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(table)
