"""The best items of every user, exactly, where users and items are vectors."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalign.ranking import best_items
from recalign.sequences import Before

CHUNK_SCORES = 1 << 24
"""Scores held at once, 64 MB: a product for few users spends its time on reading the items."""


@dataclass(frozen=True)
class TopLists:
    """items int64 [U, k], best first, 0 where none is left; scores float32 [U, k]."""

    items: np.ndarray
    scores: np.ndarray


@torch.inference_mode()
def top_lists(users: Tensor, items: Tensor, seen: np.ndarray | Before, k: int) -> TopLists:
    """The k items i with the largest users @ items[i] of each user: exact, in bounded memory.

    users [U, w], items [I+1, w] (row 0 is padding and never listed), seen [U, L] items that are
    left out, 0 padded, of which only slices are asked for. ValueError where a score is NaN.
    """
    k, step = min(k, len(items) - 1), max(1, CHUNK_SCORES // len(items))
    found = np.zeros((len(users), k), dtype=np.int64)
    scores = np.zeros((len(users), k), dtype=np.float32)
    room = users.new_empty(min(step, len(users)), len(items))  # new memory each time costs a fifth
    for start in range(0, len(users), step):
        rows = slice(start, start + step)
        hidden = torch.from_numpy(seen[rows]).to(users.device)
        product = torch.mm(users[rows], items.T, out=room[: len(hidden)])
        values, best = best_items(product, hidden, k)
        found[rows], scores[rows] = best.cpu().numpy(), values.float().cpu().numpy()
    return TopLists(found, scores)
