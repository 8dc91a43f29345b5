"""Text vectors as z-scores: centred, scaled, and cut."""

import torch
from torch import Tensor

CLIP = 6.0
"""z-scores beyond this are cut: one odd text must not drown the sequence model."""


def z_scored(item_text: Tensor) -> Tensor:
    """item_text [I+1, e] as z-scores over the items; row 0, the padding, stays zero."""
    mean, std = mean_std(item_text[1:])
    z = ((item_text - mean) / std).clamp(-CLIP, CLIP)
    z[0] = 0
    return z


def mean_std(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per column; 1 where a column hardly varies."""
    std = vectors.std(0, correction=0)
    return vectors.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))
