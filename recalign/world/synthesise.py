"""Make the synthetic world: items, users with known tastes, and what they chose."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator

from recalign.config import SyntheticWorld
from recalign.errors import UserError
from recalign.seeding import stream
from recalign.world.as_source import interaction_table, item_table, truth_table
from recalign.world.utility import match_weights
from recalign.world.vocabulary import ERAS, GENRES, MOODS, padded_ids, surnames, titles

APPEAL_SPREAD = 1.0  # standard deviation of log popularity
SECOND_GENRE_SHARE = 0.5  # items with two genres
HOME_GENRE_SHARE = 0.7  # items in their creator's home genre
HOME_ERA_SHARE = 0.6  # items from their creator's home era
HOME_BOOST = 1.5  # log-odds by which users prefer creators at home in their genres
WEIGHTS = {  # lowest and highest weight of a facet's values in a user's utility
    "genre": (1.0, 2.5),
    "creator": (1.0, 3.0),
    "era": (0.5, 2.0),
    "mood": (0.5, 2.0),
}
N_LIKED = {"genre": 2, "creator": 3, "era": 1, "mood": 1}  # values a user holds dear
DRIFT_RANGE = (0.25, 0.75)  # where in a sequence tastes may change
CHUNK = 1 << 22  # utilities in memory at once (floats)


@dataclass(frozen=True)
class World:
    """Raw tables of the world.

    interactions: user_id, item_id, timestamp (s), rating (null), row; items: item_id, title,
    attributes; truth: user_id, from_position, name, value, weight: the whole taste of a user
    from that position until the next from_position; appeal: item_id, appeal, the popularity term
    of the utility, equal for all users.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    truth: pl.DataFrame
    appeal: pl.DataFrame


@dataclass(frozen=True)
class _Catalogue:
    """Attribute values as codes: all facets share one code space of `n_values`."""

    values: np.ndarray  # [n_items, 5]: genre, second genre (or n_values), creator, era, mood
    names: list[tuple[str, str]]  # (facet, value) of each code
    first: dict[str, int]  # first code of each facet
    count: dict[str, int]  # number of values of each facet
    homes: np.ndarray  # [n_creators] home genre
    appeal: np.ndarray  # [n_items] float32


@dataclass(frozen=True)
class _Tastes:
    """What users like, before (index 0) and after (index 1) their drift."""

    liked: np.ndarray  # [2, n_users, 7] value codes
    weights: np.ndarray  # [n_users, 7] weight of each liked value
    lengths: np.ndarray  # [n_users] interactions
    drifts: np.ndarray  # [n_users] position from which index 1 holds; = length: never


def synthesise(config: SyntheticWorld) -> World:
    """The whole world, a function of the config (its seed included) alone.

    Raises UserError when users would need more items than there are.
    """
    if config.max_length > config.n_items:
        raise UserError(
            f"synthetic world: max_length {config.max_length} exceeds n_items {config.n_items}; "
            "items are never taken twice"
        )
    catalogue = _make_catalogue(config)
    tastes = _make_tastes(config, catalogue)
    item_ids = padded_ids("i", config.n_items)
    user_ids = padded_ids("u", config.n_users)
    chosen = _choose(config, catalogue, tastes)
    return World(
        interaction_table(
            user_ids, item_ids, chosen, tastes.lengths, stream(config.seed, "world", "times")
        ),
        item_table(
            item_ids, titles(config.n_items, config.seed), catalogue.values, catalogue.names
        ),
        truth_table(user_ids, tastes.liked, tastes.weights, _starts(tastes), catalogue.names),
        pl.DataFrame({"item_id": item_ids, "appeal": pl.Series(catalogue.appeal)}),
    )


def _make_catalogue(config: SyntheticWorld) -> _Catalogue:
    rng = stream(config.seed, "world", "items")
    facets = {
        "genre": GENRES[: config.n_genres],
        "creator": surnames(config.n_creators, config.seed),
        "era": ERAS[-config.n_eras :],
        "mood": MOODS[: config.n_moods],
    }
    names = [(facet, value) for facet, values in facets.items() for value in values]
    count = {facet: len(values) for facet, values in facets.items()}
    first = dict(zip(count, np.cumsum([0, *count.values()])[:-1].tolist(), strict=True))

    n = config.n_items
    homes = rng.integers(config.n_genres, size=config.n_creators)
    home_eras = rng.integers(config.n_eras, size=config.n_creators)
    creator = rng.integers(config.n_creators, size=n)
    genre = np.where(
        rng.random(n) < HOME_GENRE_SHARE, homes[creator], rng.integers(config.n_genres, size=n)
    )
    other = (genre + rng.integers(1, config.n_genres, size=n)) % config.n_genres
    second = np.where(rng.random(n) < SECOND_GENRE_SHARE, other, len(names))
    era = np.where(
        rng.random(n) < HOME_ERA_SHARE, home_eras[creator], rng.integers(config.n_eras, size=n)
    )
    mood = rng.integers(config.n_moods, size=n)
    values = np.stack(
        [genre, second, creator + first["creator"], era + first["era"], mood + first["mood"]], 1
    )
    appeal = (APPEAL_SPREAD * rng.standard_normal(n)).astype(np.float32)
    return _Catalogue(values, names, first, count, homes, appeal)


def _make_tastes(config: SyntheticWorld, catalogue: _Catalogue) -> _Tastes:
    rng = stream(config.seed, "world", "users")
    n = config.n_users
    liked = np.stack([_draw_liked(rng, n, catalogue) for _ in range(2)])
    weights = np.concatenate(
        [
            np.repeat(rng.uniform(*WEIGHTS[facet], size=(n, 1)), _n_liked(facet, catalogue), axis=1)
            for facet in N_LIKED
        ],
        axis=1,
    )
    lengths = rng.integers(config.min_length, config.max_length + 1, size=n)
    low, high = DRIFT_RANGE
    drifts = np.maximum(1, (rng.uniform(low, high, size=n) * lengths).astype(np.int64))
    drifts = np.where(rng.random(n) < config.drift_share, drifts, lengths)
    return _Tastes(liked, weights.astype(np.float32), lengths, drifts)


def _starts(tastes: _Tastes) -> np.ndarray:
    """First position of each taste, int64 [2, n_users]; -1 where it never holds."""
    drifted = np.where(tastes.drifts < tastes.lengths, tastes.drifts, -1)
    return np.stack([np.zeros_like(drifted), drifted])


def _n_liked(facet: str, catalogue: _Catalogue) -> int:
    return min(N_LIKED[facet], catalogue.count[facet])


def _draw_liked(rng: Generator, n: int, catalogue: _Catalogue) -> np.ndarray:
    """Value codes of each user's liked genres, creators, era and mood, int64 [n, 7]."""
    columns: list[np.ndarray] = []
    for facet in N_LIKED:
        scores = rng.gumbel(size=(n, catalogue.count[facet]))
        if facet == "creator":  # users prefer creators who are at home in one of their genres
            at_home = (catalogue.homes[None, :, None] == columns[0][:, None, :]).any(2)
            scores += HOME_BOOST * at_home
        top = np.argsort(-scores, axis=1)[:, : _n_liked(facet, catalogue)]
        columns.append(top + catalogue.first[facet])
    return np.concatenate(columns, axis=1)


def _choose(config: SyntheticWorld, catalogue: _Catalogue, tastes: _Tastes) -> np.ndarray:
    """The items each user takes, in order, int64 [n_users, max_length] (item rows from 0).

    Taking one after the other by utility + noise * Gumbel without replacement is the
    Plackett-Luce model, which sorting by utility / noise + Gumbel samples in one go.
    """
    draws = [stream(config.seed, "world", "choices", regime) for regime in range(2)]
    chosen = np.zeros((config.n_users, config.max_length), dtype=np.int64)
    step = max(1, CHUNK // config.n_items)
    for start in range(0, config.n_users, step):
        rows = slice(start, min(start + step, config.n_users))
        drifts = tastes.drifts[rows, None]
        earlier, later = (
            _keys(catalogue, tastes.liked[n, rows], tastes.weights[rows], config.noise, draws[n])
            for n in range(2)
        )
        before = _ordered(earlier, config.max_length)
        taken = np.where(np.arange(config.max_length) < drifts, before, before[:, :1])
        np.put_along_axis(later, taken, -np.inf, axis=1)  # what was taken before the drift
        after = _ordered(later, config.max_length)
        place = np.arange(config.max_length)
        shifted = np.take_along_axis(after, np.maximum(place - drifts, 0), axis=1)
        chosen[rows] = np.where(place < drifts, before, shifted)
    return chosen


def _keys(
    catalogue: _Catalogue, liked: np.ndarray, weights: np.ndarray, noise: float, draws: Generator
) -> np.ndarray:
    """Utility / noise + Gumbel of every item, float32 [B, n_items]; liked, weights [B, 7]."""
    by_code = np.zeros((len(liked), len(catalogue.names) + 1), dtype=np.float32)
    np.put_along_axis(by_code, liked, weights, axis=1)
    keys = match_weights(by_code, catalogue.values)
    keys += catalogue.appeal
    keys /= noise
    exponential = draws.standard_exponential(keys.shape, dtype=np.float32)  # may be exactly 0
    keys -= np.log(np.maximum(exponential, np.finfo(np.float32).tiny))  # -log Exp(1) is Gumbel
    return keys


def _ordered(keys: np.ndarray, n: int) -> np.ndarray:
    """Columns of the `n` largest keys of each row, largest first, int64 [B, n]."""
    top = np.argpartition(-keys, n - 1, axis=1)[:, :n]
    order = np.argsort(-np.take_along_axis(keys, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
