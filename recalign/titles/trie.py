"""Token sequences that share their beginnings, as a tree: each shared token is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recalign.errors import UserError


@dataclass(frozen=True)
class Trie:
    """Nodes 0..N-1 in the order in which titles reach them; node 0 is the end of the prompt.

    tokens, parents int64 [N] (0 for node 0); paths int64 [T, D]: the nodes of every title's
    tokens, 0 behind its end (a title without tokens has none).
    """

    tokens: np.ndarray
    parents: np.ndarray
    paths: np.ndarray

    @cached_property
    def inner(self) -> np.ndarray:
        """Nodes with something behind them, without node 0: what a model has to be fed."""
        return np.setdiff1d(self.parents, [0])

    @cached_property
    def slots(self) -> np.ndarray:
        """int64 [N]: 1 + the place of each inner node among `inner`; 0 for node 0 and leaves."""
        slots = np.zeros(len(self.tokens), dtype=np.int64)
        slots[self.inner] = np.arange(1, len(self.inner) + 1)
        return slots

    @cached_property
    def depths(self) -> np.ndarray:
        """int64 [N]: tokens between the prompt and the node; -1 for node 0."""
        depths = np.full(len(self.tokens), -1)
        rows, columns = np.nonzero(self.paths)
        depths[self.paths[rows, columns]] = columns
        return depths

    @cached_property
    def sees(self) -> np.ndarray:
        """bool [F, F] over `inner`: which of them each may look at (its ancestors and itself)."""
        sees = np.eye(len(self.inner), dtype=bool)
        above = self.slots[self.parents[self.inner]]
        for place, parent in enumerate(above.tolist()):
            if parent:
                sees[place] |= sees[parent - 1]
        return sees


def trie_of(titles: Sequence[Sequence[int]]) -> Trie:
    """The tree of these token sequences, in their order."""
    places: dict[tuple[int, int], int] = {}
    paths = np.zeros((len(titles), max(map(len, titles), default=0)), dtype=np.int64)
    for row, ids in enumerate(titles):
        node = 0
        for column, token in enumerate(ids):
            node = places.setdefault((node, int(token)), len(places) + 1)
            paths[row, column] = node
    edges = np.array([(0, 0), *places], dtype=np.int64)
    return Trie(edges[:, 1], edges[:, 0], paths)


@dataclass(frozen=True)
class Catalogue:
    """All titles in one tree, ordered so that those below a node are neighbours.

    order int64 [T]: items by their token ids; lows, highs int64 [N]: the titles below (or at) a
    node are order[low:high]; items int64 [N]: the item whose title ends at the node, 0: none;
    children int64 [N-1] sorted by parent, those of node n are children[starts[n]:starts[n+1]].
    """

    trie: Trie
    order: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    items: np.ndarray
    children: np.ndarray
    starts: np.ndarray


def catalogue_of(titles: Sequence[Sequence[int]], names: Sequence[str] = ()) -> Catalogue:
    """The tree of titles[1:] (titles[0] is padding). UserError: two titles are the same tokens.

    names: the titles in letters, where they are at hand to be told.
    """
    order = np.array(sorted(range(1, len(titles)), key=lambda item: list(titles[item])))
    trie = trie_of([titles[item] for item in order])
    n_nodes = len(trie.tokens)
    rows, columns = np.nonzero(trie.paths)
    nodes = trie.paths[rows, columns]
    lows, highs = np.full(n_nodes, len(order)), np.zeros(n_nodes, dtype=np.int64)
    np.minimum.at(lows, nodes, rows)
    np.maximum.at(highs, nodes, rows + 1)
    lows[0], highs[0] = 0, len(order)
    ends = trie.paths.max(1, initial=0)  # nodes are numbered downwards
    items = np.zeros(n_nodes, dtype=np.int64)
    items[ends] = order
    for row in np.flatnonzero(items[ends] != order)[:1]:
        one, other = sorted([int(order[row]), int(items[ends[row]])])
        told = f"{names[one]!r} and {names[other]!r}" if names else f"of items {one} and {other}"
        raise UserError(
            f"the tokenizer writes the titles {told} with the same tokens: they cannot be told"
            " apart; change one of them, or choose another LLM"
        )
    children = 1 + np.argsort(trie.parents[1:], kind="stable")
    starts = np.searchsorted(trie.parents[children], np.arange(n_nodes + 1))
    return Catalogue(trie, order, lows, highs, items, children, starts)
