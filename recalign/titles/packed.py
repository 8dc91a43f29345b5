"""Many titles behind one prompt in one packed row, each with its own log-probability."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recalign.titles.reading import Reading
from recalign.titles.trie import Trie

NORMALISED = 1 << 20  # logits made float32 at once: they and their copies stay in a CPU's cache


def title_log_probs(reading: Reading, tries: Sequence[Trie]) -> Tensor:
    """Summed log-probabilities of the titles of each prompt's tree: float32 [B, T].

    `tries`: one per prompt, or a single one for all. A title's last token is never fed, as nothing
    is read off behind it. Titles without tokens (padding) get 0.
    """
    device, n_rows = reading.first.device, len(reading.lengths)

    def rows(arrays: list[np.ndarray]) -> Tensor:
        stacked = torch.from_numpy(_stacked(arrays)).to(device)
        return stacked.expand(n_rows, *stacked.shape[1:])

    tokens = rows([trie.tokens for trie in tries])  # [B, N]
    slots = rows([trie.slots[trie.parents] for trie in tries])  # which logits predict each node
    paths = rows([trie.paths for trie in tries])  # [B, T, D]
    root = reading.first.gather(1, tokens) - reading.first.logsumexp(1, keepdim=True)
    fed = rows([trie.tokens[trie.inner] for trie in tries])  # [B, F]
    if fed.shape[1]:
        sees = rows([trie.sees for trie in tries])
        itself = torch.eye(fed.shape[1], dtype=torch.bool, device=device)  # padding needs it too
        depths = rows([trie.depths[trie.inner] for trie in tries])
        logits = reading.extend(fed, depths, sees | itself)  # [B, F, V]
        reading.forget()
        above = (slots - 1).clamp(min=0)
        picked = logits.flatten(1).gather(1, above * logits.shape[2] + tokens)
        behind = picked.float() - normalisers(logits).gather(1, above)
        root = torch.where(slots > 0, behind, root)
    root[:, 0] = 0.0  # node 0 pads the paths
    return root.gather(1, paths.flatten(1)).view(paths.shape).sum(2)


def normalisers(logits: Tensor) -> Tensor:
    """log of the sum of exp over the vocabulary, float32 [B, F] of [B, F, V]."""
    rows = logits.flatten(0, 1)
    at_once = max(1, NORMALISED // rows.shape[1])
    parts = [part.float().logsumexp(1) for part in rows.split(at_once)]
    return torch.cat(parts).view(logits.shape[:2])


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays of equal dimension padded with zeros to one shape, stacked."""
    shape = np.max([array.shape for array in arrays], axis=0)
    table = np.zeros((len(arrays), *shape), dtype=arrays[0].dtype)
    for row, array in zip(table, arrays, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return table
