"""Text vectors as z-scores: centred, scaled, and cut."""

import torch
from torch import Tensor

CLIP = 6.0
"""z-scores beyond this are cut: one odd text must not drown the sequence model."""


def mean_std(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per column; 1 where a column hardly varies."""
    std = vectors.std(0, correction=0)
    return vectors.mean(0), torch.where(std > 1e-6, std, torch.ones_like(std))
