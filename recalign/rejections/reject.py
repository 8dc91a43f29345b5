"""Pairs of the item taken and K items rejected for it, by strategy; every row on its own stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recalign.config import RejectionsStage
from recalign.rejections.draws import (
    among_nearest,
    draw_slots,
    largest,
    popularity_weights,
    successive,
)
from recalign.schemas import REJECTIONS
from recalign.seeding import derive_seed
from recalign.sequences import Sequences

DRAWN = {**REJECTIONS, "left_out": pl.String}  # why a row gives no pair; null: it gives one
NOT_ABOVE = "nothing ranked above the truth"
TOO_FEW = "too few items to reject"

Render = Callable[[Sequence[int], Sequence[int]], str]
"""Prompt text of a history and of candidates (none in the history format)."""
Score = Callable[[list[str], np.ndarray | None], np.ndarray]
"""Log-probabilities [B, P] of the items [B, P] (0 padded) after B prompts; None: [B, I+1], all."""


@dataclass(frozen=True)
class Sources:
    """What all rows draw from."""

    sequences: Sequences
    popularity: np.ndarray
    """Interactions in history windows, int64 [I+1]."""
    vectors: np.ndarray
    """Item texts as unit vectors, float32 [I+1, e]."""
    render: Render
    score: Score | None = None
    """The SFT model; None where no strategy asks it."""


@dataclass
class _Row:
    """One pair in the making."""

    user: int
    position: int
    first: int
    history: np.ndarray
    chosen: int
    chosen_score: float | None
    seed: int
    draws: np.random.Generator
    free: np.ndarray
    """Items that may still be rejected, bool [I+1]."""
    slots: dict[str, int]
    candidates: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rejected: list[int] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    left_out: str | None = None

    def reject(self, strategy: str, items: np.ndarray, scores: np.ndarray) -> None:
        """Keep these items and their scores [I+1]; too few of them leave the row out."""
        if len(items) < self.slots[strategy]:
            self.left_out = self.left_out or TOO_FEW
        self.rejected += items.tolist()
        self.strategies += [strategy] * len(items)
        self.scores += scores[items].astype(np.float64).tolist()
        self.free[items] = False


def reject(
    config: RejectionsStage, sources: Sources, users: np.ndarray, positions: np.ndarray
) -> pl.DataFrame:
    """DRAWN: a row for each of `users` [B] at `positions` [B], in their order.

    Chosen is the item at the position. Items before it are never rejected; what the user takes
    later is not looked at (to spare it would tell the future), so that a rejected item can be one
    that the user takes after all: a true false negative, which `describe` counts.

    self_hard takes the items that the SFT model ranks highest, and leaves the row out where it
    ranks none above the chosen one. Candidates in a prompt are the chosen item, the rejected ones
    and random others, in random order; an SFT model that is asked with candidates prefers among
    those it is shown. Nothing here depends on how rows are batched.
    """
    rows = [
        _start(config, sources, user, position)
        for user, position in zip(users.tolist(), positions.tolist(), strict=True)
    ]
    _draw_without_model(config, sources, rows)
    if config.prompt.format == "candidates":
        for row in rows:
            row.candidates = _with_others(row, config.prompt.n_candidates, shuffled=True)
    prompts = [sources.render(row.history.tolist(), row.candidates.tolist()) for row in rows]
    if config.needs_sft:
        _ask_model(config, sources, rows, prompts)
    return pl.DataFrame(
        {
            "user_index": users,
            "position": positions,
            "first_position": [row.first for row in rows],
            "history": [row.history.tolist() for row in rows],
            "candidates": [row.candidates.tolist() for row in rows],
            "prompt": prompts,
            "chosen": [row.chosen for row in rows],
            "chosen_score": [row.chosen_score for row in rows],
            "rejected": [row.rejected for row in rows],
            "strategies": [row.strategies for row in rows],
            "scores": [row.scores for row in rows],
            "seed": [row.seed for row in rows],
            "left_out": [row.left_out for row in rows],
        },
        schema=DRAWN,
    )


def _start(config: RejectionsStage, sources: Sources, user: int, position: int) -> _Row:
    seed = derive_seed(config.seed, "rejections", user, position)
    draws = np.random.default_rng(seed)
    own = sources.sequences.slice(user, 0, position + 1)
    free = np.ones(sources.sequences.n_items + 1, dtype=bool)
    free[own] = False
    free[0] = False
    first = max(0, position - config.prompt.history_items)
    if config.strategy == "mix":
        slots = draw_slots(dict(config.mix), config.n_rejected, draws)
    else:
        slots = {config.strategy: config.n_rejected}
    return _Row(
        user, position, first, own[first:position], int(own[-1]), None, seed, draws, free, slots
    )


def _draw_without_model(config: RejectionsStage, sources: Sources, rows: list[_Row]) -> None:
    """Items of the strategies that need no SFT model, with similarity, count or 0 as score."""
    even = np.zeros(len(sources.popularity))
    by_popularity = popularity_weights(sources.popularity, config.popularity_alpha)
    for row in rows:
        if n := row.slots.get("semantic"):
            similarity = sources.vectors @ _anchor(config, sources, row)
            items = among_nearest(similarity, row.free, config.neighbours, n, row.draws)
            row.reject("semantic", items, similarity)
        if n := row.slots.get("popularity"):
            items = successive(by_popularity, row.free, n, row.draws)
            row.reject("popularity", items, sources.popularity)
        if n := row.slots.get("random"):
            row.reject("random", successive(even, row.free, n, row.draws), even)


def _anchor(config: RejectionsStage, sources: Sources, row: _Row) -> np.ndarray:
    """What semantic neighbours are near to, float32 [e]."""
    if config.semantic_to == "target":
        return sources.vectors[row.chosen]
    mean = sources.vectors[row.history].mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _with_others(row: _Row, n: int, *, shuffled: bool = False) -> np.ndarray:
    """The chosen item, what is rejected so far, and random free items, `n` in all if there are."""
    kept = np.array([row.chosen, *row.rejected], dtype=np.int64)
    others = successive(np.zeros(len(row.free)), row.free, max(0, n - len(kept)), row.draws)
    items = np.concatenate([kept, others])
    return row.draws.permutation(items) if shuffled else items


def _ask_model(
    config: RejectionsStage, sources: Sources, rows: list[_Row], prompts: list[str]
) -> None:
    """Items that the SFT model prefers, with their log-probability."""
    if sources.score is None:
        raise ValueError(f"strategy {config.strategy} needs the SFT model")
    asked = [i for i, row in enumerate(rows) if {"self_hard", "self_softmax"} & row.slots.keys()]
    if not asked:
        return
    pools = [_pool(config, rows[i]) for i in asked]
    limited = pools[0] is not None
    items = _padded([pool for pool in pools if pool is not None]) if limited else None
    found = sources.score([prompts[i] for i in asked], items)
    for place, i in enumerate(asked):
        row = rows[i]
        scores = np.full(len(row.free), -np.inf)
        if items is None:
            scores[:] = found[place]
        else:
            scores[items[place]] = found[place]
        scores[0] = -np.inf
        row.free &= np.isfinite(scores)
        row.chosen_score = float(scores[row.chosen])
        _take_preferred(config, row, scores)


def _pool(config: RejectionsStage, row: _Row) -> np.ndarray | None:
    """What the SFT model scores for a row: the titles it is shown, a drawn pool, or (None) all."""
    if config.prompt.format == "candidates":
        return row.candidates
    return _with_others(row, config.pool) if config.pool else None


def _take_preferred(config: RejectionsStage, row: _Row, scores: np.ndarray) -> None:
    if n := row.slots.get("self_hard"):
        places = np.flatnonzero(row.free)
        items = places[largest(scores[places], n)]
        row.reject("self_hard", items, scores)
        if len(items) and scores[items[0]] <= scores[row.chosen]:
            row.left_out = row.left_out or NOT_ABOVE
    if n := row.slots.get("self_softmax"):
        items = successive(scores / config.temperature, row.free, n, row.draws)
        row.reject("self_softmax", items, scores)


def _padded(lists: list[np.ndarray]) -> np.ndarray:
    """Lists of items as one int64 [B, P] array, padded with 0 on the right."""
    table = np.zeros((len(lists), max(map(len, lists))), dtype=np.int64)
    for row, items in enumerate(lists):
        table[row, : len(items)] = items
    return table
