"""Pairs of the item taken and K items rejected for it; every pair on its own random stream."""

import numpy as np
import polars as pl

from recalign.config import ASKS_SFT, RejectionsStage
from recalign.rejections.draft import PairDraft, Sources
from recalign.rejections.draws import draw_slots, successive
from recalign.rejections.strategies import pick
from recalign.schemas import REJECTIONS
from recalign.seeding import derive_seed
from recalign.sequences import padded_items

DRAWN = {**REJECTIONS, "left_out": pl.String}  # why a row gives no pair; null: it gives one
PLACES = 1 << 26
"""Items times pairs in hand at once: every pair in the making tells of every item whether it is
free, and its log-probability, 9 bytes."""


def reject(
    config: RejectionsStage, sources: Sources, users: np.ndarray, positions: np.ndarray
) -> pl.DataFrame:
    """DRAWN: a row for each of `users` [B] at `positions` [B], in their order.

    Chosen is the item at the position. Items before it are never rejected; what the user takes
    later is not looked at (to spare it would tell the future), so that a rejected item can be one
    that the user takes after all: a true false negative, which `describe` counts.

    Candidates in a prompt are the chosen item, the rejected ones and random others, in random
    order; an SFT model that is asked with candidates prefers among those it is shown. Nothing here
    depends on how rows are batched.
    """
    step = max(1, PLACES // (sources.sequences.n_items + 1))
    parts = [slice(start, start + step) for start in range(0, max(1, len(users)), step)]
    return pl.concat([_rows(config, sources, users[part], positions[part]) for part in parts])


def _rows(
    config: RejectionsStage, sources: Sources, users: np.ndarray, positions: np.ndarray
) -> pl.DataFrame:
    """DRAWN of so few users and positions that all are in hand at once."""
    pairs = [
        _start(config, sources, user, position)
        for user, position in zip(users.tolist(), positions.tolist(), strict=True)
    ]
    for pair in pairs:
        for strategy in [one for one in pair.slots if one not in ASKS_SFT]:
            pair.reject(strategy, pick(strategy, config, sources, pair))
        if config.prompt.format == "candidates":
            pair.candidates = _with_others(pair, config.prompt.n_candidates, shuffled=True)
    prompts = [sources.render(pair.history.tolist(), pair.candidates.tolist()) for pair in pairs]
    if config.needs_sft:
        _ask_model(config, sources, pairs, prompts)
    return pl.DataFrame(
        {
            "user_index": users,
            "position": positions,
            "first_position": [pair.first for pair in pairs],
            "history": [pair.history.tolist() for pair in pairs],
            "candidates": [pair.candidates.tolist() for pair in pairs],
            "prompt": prompts,
            "chosen": [pair.chosen for pair in pairs],
            "chosen_score": [pair.chosen_score for pair in pairs],
            "rejected": [pair.rejected for pair in pairs],
            "strategies": [pair.strategies for pair in pairs],
            "scores": [pair.scores for pair in pairs],
            "seed": [pair.seed for pair in pairs],
            "left_out": [pair.left_out for pair in pairs],
        },
        schema=DRAWN,
    )


def _start(config: RejectionsStage, sources: Sources, user: int, position: int) -> PairDraft:
    seed = derive_seed(config.seed, "rejections", user, position)
    draws = np.random.default_rng(seed)
    own = sources.sequences.slice(user, 0, position + 1)
    free = np.ones(sources.sequences.n_items + 1, dtype=bool)
    free[own] = False
    free[0] = False
    first = max(0, position - config.prompt.history_items)
    if config.strategy == "mix":
        slots = draw_slots(config.mix.weights(), config.n_rejected, draws)
    else:
        slots = {config.strategy: config.n_rejected}
    return PairDraft(
        user, position, first, own[first:position], int(own[-1]), seed, draws, free, slots
    )


def _with_others(pair: PairDraft, n: int, *, shuffled: bool = False) -> np.ndarray:
    """The chosen item, what is rejected so far, and random free items, `n` in all if there are."""
    kept = np.array([pair.chosen, *pair.rejected], dtype=np.int64)
    others = successive(np.zeros(len(pair.free)), pair.free, max(0, n - len(kept)), pair.draws)
    items = np.concatenate([kept, others])
    return pair.draws.permutation(items) if shuffled else items


def _ask_model(
    config: RejectionsStage, sources: Sources, pairs: list[PairDraft], prompts: list[str]
) -> None:
    """Items that the SFT model prefers, with their log-probability."""
    if sources.score is None:
        raise ValueError(f"strategy {config.strategy} needs the SFT model")
    asked = [i for i, pair in enumerate(pairs) if any(one in ASKS_SFT for one in pair.slots)]
    if not asked:
        return
    pools = [_pool(config, pairs[i]) for i in asked]
    limited = pools[0] is not None
    items = padded_items([pool for pool in pools if pool is not None]) if limited else None
    found = sources.score([prompts[i] for i in asked], items)
    for place, i in enumerate(asked):
        pair = pairs[i]
        pair.log_probs = np.full(len(pair.free), -np.inf)
        pair.log_probs[slice(None) if items is None else items[place]] = found[place]
        pair.log_probs[0] = -np.inf
        pair.free &= np.isfinite(pair.log_probs)
        pair.chosen_score = float(pair.log_probs[pair.chosen])
        for strategy in [one for one in pair.slots if one in ASKS_SFT]:
            pair.reject(strategy, pick(strategy, config, sources, pair))


def _pool(config: RejectionsStage, pair: PairDraft) -> np.ndarray | None:
    """What the SFT model scores for a pair: the titles it is shown, a drawn pool, or (None) all."""
    if config.prompt.format == "candidates":
        return pair.candidates
    return _with_others(pair, config.pool) if config.pool else None
