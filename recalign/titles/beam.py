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
    below = _allowed_below(catalogue, forbidden)
    state = _State.start(n_rows, width)
    logits = reading.first[:, None]
    device = logits.device
    ancestors = torch.zeros(n_rows, width, 0, dtype=torch.bool, device=device)
    itself = torch.eye(width, dtype=torch.bool, device=device).expand(n_rows, -1, -1)
    for depth in range(catalogue.trie.paths.shape[1]):
        state, parents = _advance(state, logits.log_softmax(-1), catalogue, below)
        if not state.live.any():
            break
        kept = torch.from_numpy(parents).to(device)[:, :, None].expand(-1, -1, ancestors.shape[2])
        ancestors = torch.cat([ancestors.gather(1, kept), itself], 2)
        tokens = torch.from_numpy(catalogue.trie.tokens[state.nodes]).to(device)
        logits = reading.extend(tokens, torch.full_like(tokens, depth), ancestors)
    reading.forget()
    return state.items, np.where(state.items > 0, state.scores, -np.inf).astype(np.float32)


class _State:
    """Per prompt `width` hypotheses: [B, W] scores (-inf: none), nodes, and items once finished."""

    def __init__(self, scores: np.ndarray, nodes: np.ndarray, items: np.ndarray) -> None:
        self.scores, self.nodes, self.items = scores, nodes, items

    @classmethod
    def start(cls, n_rows: int, width: int) -> "_State":
        """One empty prefix per prompt."""
        nothing = np.zeros((n_rows, width), dtype=np.int64)
        scores = np.full((n_rows, width), -np.inf)
        scores[:, 0] = 0.0
        return cls(scores, nothing, nothing)

    @property
    def live(self) -> np.ndarray:
        """Hypotheses that still have to be continued."""
        return (self.items == 0) & (self.scores > -np.inf)


def _advance(
    state: _State, log_probs: torch.Tensor, catalogue: Catalogue, below: np.ndarray
) -> tuple[_State, np.ndarray]:
    """Every live prefix by one token; the best survive, and which hypothesis each continues."""
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


def _best(options: list[np.ndarray], shape: tuple[int, ...]) -> tuple[_State, np.ndarray]:
    """The best options (row, hypothesis, node, item, score) of every row, and their hypotheses."""
    order = np.lexsort((-options[4], options[0]))
    rows, beams, nodes, items, scores = (option[order] for option in options)
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = places < shape[1]
    at = rows[kept], places[kept]
    new = _State(np.full(shape, -np.inf), np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    parents = np.zeros(shape, dtype=np.int64)
    new.nodes[at], new.items[at], new.scores[at] = nodes[kept], items[kept], scores[kept]
    parents[at] = beams[kept]
    return new, parents


def _allowed_below(catalogue: Catalogue, forbidden: list[np.ndarray]) -> np.ndarray:
    """int64 [B, T+1]: how many of the first t titles (in the catalogue's order) are allowed."""
    n_titles = len(catalogue.order)
    place = np.zeros(n_titles + 1, dtype=np.int64)
    place[catalogue.order] = np.arange(n_titles)
    allowed = np.ones((len(forbidden), n_titles), dtype=np.int64)
    for row, items in enumerate(forbidden):
        allowed[row, place[items[items > 0]]] = 0
    return np.pad(allowed.cumsum(1), ((0, 0), (1, 0)))
