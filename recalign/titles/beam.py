"""Beam search that can only write titles of the catalogue."""

import numpy as np
import torch

from recalign.titles.packed import normalisers
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
    ancestors = torch.zeros(n_rows, 1, 0, dtype=torch.bool, device=device)
    for depth in range(catalogue.trie.paths.shape[1]):
        state = _advance(state, logits, catalogue, below)
        n_fed = state.live.sum(1).max()  # of each row: live ones come first
        if not n_fed:
            break
        kept = torch.from_numpy(state.parents[:, :n_fed]).to(device)[:, :, None]
        kept = kept.expand(-1, -1, ancestors.shape[2])
        itself = torch.eye(n_fed, dtype=torch.bool, device=device).expand(n_rows, -1, -1)
        ancestors = torch.cat([ancestors.gather(1, kept), itself], 2)
        tokens = torch.from_numpy(catalogue.trie.tokens[state.nodes[:, :n_fed]]).to(device)
        logits = reading.extend(tokens, torch.full_like(tokens, depth), ancestors)
    reading.forget()
    return state.items, np.where(state.items > 0, state.scores, -np.inf).astype(np.float32)


class _State:
    """Hypotheses [B, W]: scores (-inf: none), nodes, items once finished, and which each continues.

    Live ones come first, best first, then finished ones, best first. `parents` of live ones are
    places among the live ones one token before.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.scores = np.full(shape, -np.inf)
        self.nodes, self.items, self.parents = np.zeros((3, *shape), dtype=np.int64)

    @property
    def live(self) -> np.ndarray:
        """Hypotheses that still have to be continued."""
        return (self.items == 0) & (self.scores > -np.inf)


def _advance(
    state: _State, logits: torch.Tensor, catalogue: Catalogue, below: np.ndarray
) -> _State:
    """Every live prefix by one token, logits [B, n, V] for the first n; the best survive."""
    starts = catalogue.starts
    rows, beams = np.nonzero(state.live)
    nodes = state.nodes[rows, beams]
    counts = starts[nodes + 1] - starts[nodes]
    rows, beams, first = (np.repeat(a, counts) for a in (rows, beams, starts[nodes]))
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    children = catalogue.children[first + within]
    tokens = catalogue.trie.tokens[children]
    at = [torch.from_numpy(a).to(logits.device) for a in (rows, beams, tokens)]
    log_probs = logits[at[0], at[1], at[2]].float() - normalisers(logits)[at[0], at[1]]
    scores = state.scores[rows, beams] + log_probs.cpu().numpy()
    items = catalogue.items[children]
    low, high = catalogue.lows[children], catalogue.highs[children]
    behind = low + (items > 0)  # a title that ends at the node comes first among those below it
    ends = (items > 0) & (below[rows, behind] > below[rows, low])
    goes_on = below[rows, high] > below[rows, behind]
    done_rows, done_beams = np.nonzero(state.items)
    nowhere = np.zeros(len(done_rows), dtype=np.int64)  # a finished one goes on from none
    options = [
        np.concatenate(parts)
        for parts in (
            (done_rows, rows[ends], rows[goes_on]),
            (nowhere, beams[ends], beams[goes_on]),
            (state.nodes[done_rows, done_beams], children[ends], children[goes_on]),
            (state.items[done_rows, done_beams], items[ends], np.zeros(goes_on.sum(), np.int64)),
            (state.scores[done_rows, done_beams], scores[ends], scores[goes_on]),
        )
    ]
    return _best(options, state.scores.shape)


def _best(options: list[np.ndarray], shape: tuple[int, ...]) -> _State:
    """The best options (row, parent, node, item, score) of every row."""
    best = np.lexsort((-options[4], options[0]))
    best = best[_places(options[0][best]) < shape[1]]
    order = best[np.lexsort((options[3][best] > 0, options[0][best]))]  # live ones first
    rows, parents, nodes, items, scores = (option[order] for option in options)
    at = rows, _places(rows)
    new = _State(shape)
    new.nodes[at], new.items[at], new.scores[at], new.parents[at] = nodes, items, scores, parents
    return new


def _places(rows: np.ndarray) -> np.ndarray:
    """Sorted rows: the place of each within its row."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
