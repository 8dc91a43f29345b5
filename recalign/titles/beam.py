"""Beam search that can only write titles of the catalogue."""

import numpy as np
import torch

from recalign.titles.reading import Reading
from recalign.titles.trie import Catalogue


def beam_search(
    reading: Reading, catalogue: Catalogue, width: int, forbidden: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The best titles found per prompt, best first: items int64 [B, width], log-probs [B, width].

    forbidden: items that each prompt must not be answered with (0 is none). Where fewer titles
    are left, items are 0 and log-probabilities -inf. A prefix is followed only while an allowed
    title lies behind it; finished titles compete with prefixes, which can only get less likely. So
    when `width` is at least the number of titles nothing is cut off and the result is exact.
    """
    n_rows = len(reading.lengths)
    allowed = [~np.isin(catalogue.order, items) for items in forbidden]
    below = np.pad(np.cumsum(allowed, axis=1), ((0, 0), (1, 0)))  # allowed of the first t titles
    state = _State((n_rows, width))
    state.scores[:, 0] = 0.0  # one empty prefix per prompt
    logits = reading.first[:, None]
    device = logits.device
    ancestors = torch.zeros(n_rows, width, 0, dtype=torch.bool, device=device)
    itself = torch.eye(width, dtype=torch.bool, device=device).expand(n_rows, -1, -1)
    for depth in range(catalogue.trie.paths.shape[1]):
        log_probs = logits.log_softmax(-1, dtype=torch.float32)
        state = _advance(state, log_probs, catalogue, below)
        if not state.live.any():
            break
        kept = torch.from_numpy(state.parents).to(device)[:, :, None]
        kept = kept.expand(-1, -1, ancestors.shape[2])
        ancestors = torch.cat([ancestors.gather(1, kept), itself], 2)
        tokens = torch.from_numpy(catalogue.trie.tokens[state.nodes]).to(device)
        logits = reading.extend(tokens, torch.full_like(tokens, depth), ancestors)
    reading.forget()
    return state.items, np.where(state.items > 0, state.scores, -np.inf).astype(np.float32)


class _State:
    """Hypotheses [B, W]: scores (-inf: none), nodes, items once finished, and which each continues.

    `parents` are places among the hypotheses one token before.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.scores = np.full(shape, -np.inf)
        self.nodes, self.items, self.parents = np.zeros((3, *shape), dtype=np.int64)

    @property
    def live(self) -> np.ndarray:
        """Hypotheses that still have to be continued."""
        return (self.items == 0) & (self.scores > -np.inf)


def _advance(
    state: _State, log_probs: torch.Tensor, catalogue: Catalogue, below: np.ndarray
) -> _State:
    """Every live prefix by one token; the best survive."""
    starts = catalogue.starts
    rows, beams = np.nonzero(state.live)
    nodes = state.nodes[rows, beams]
    counts = starts[nodes + 1] - starts[nodes]
    rows, beams, first = (np.repeat(a, counts) for a in (rows, beams, starts[nodes]))
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    children = catalogue.children[first + within]
    tokens = catalogue.trie.tokens[children]
    index = [torch.from_numpy(a).to(log_probs.device) for a in (rows, beams, tokens)]
    scores = state.scores[rows, beams] + log_probs[index[0], index[1], index[2]].cpu().numpy()
    items = catalogue.items[children]
    low, high = catalogue.lows[children], catalogue.highs[children]
    behind = low + (items > 0)  # a title that ends at the node comes first among those below it
    ends = (items > 0) & (below[rows, behind] > below[rows, low])
    goes_on = below[rows, high] > below[rows, behind]
    done_rows, done_beams = np.nonzero(state.items)
    options = [
        np.concatenate(parts)
        for parts in (
            (done_rows, rows[ends], rows[goes_on]),
            (done_beams, beams[ends], beams[goes_on]),
            (state.nodes[done_rows, done_beams], children[ends], children[goes_on]),
            (state.items[done_rows, done_beams], items[ends], np.zeros(goes_on.sum(), np.int64)),
            (state.scores[done_rows, done_beams], scores[ends], scores[goes_on]),
        )
    ]
    return _best(options, state.scores.shape)


def _best(options: list[np.ndarray], shape: tuple[int, ...]) -> _State:
    """The best options (row, parent, node, item, score) of every row."""
    order = np.lexsort((-options[4], options[0]))
    rows, parents, nodes, items, scores = (option[order] for option in options)
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = places < shape[1]
    at = rows[kept], places[kept]
    new = _State(shape)
    new.nodes[at], new.items[at], new.scores[at] = nodes[kept], items[kept], scores[kept]
    new.parents[at] = parents[kept]
    return new
