"""Fixed lists of items a user never took, drawn once, for list-wise metrics."""

import itertools

import numpy as np
import polars as pl

from recalign.config import SplitsConfig
from recalign.progress import Progress, silent
from recalign.schemas import CANDIDATES, check_table
from recalign.seeding import stream
from recalign.sequences import Sequences

CELLS = 1 << 22
"""Most users times items that are looked at once: the tables of who took what stay in the cache."""
MAX_BLOCK = 4096
"""Most users at once, each of whom has a generator."""


def draw_candidates(
    sequences: Sequences,
    windows: pl.DataFrame,
    config: SplitsConfig,
    progress: Progress = silent,
) -> pl.DataFrame:
    """CANDIDATES: for each prompted user one list drawn uniformly and one by popularity^alpha.

    Drawn without replacement among the items that the user never took at any position, in the
    order of drawing. Popularity counts history windows only. Every (user, kind) has a random
    stream of its own: neither other users nor their order matter. A list is shorter than
    n_negatives only where the user left fewer items untaken; items without popularity are drawn
    when no popular one is left.
    """
    popularity = history_popularity(sequences, windows).astype(np.float64)
    weights = {
        "popularity": np.power(popularity, config.popularity_alpha),
        "uniform": np.ones(sequences.n_items + 1),
    }
    for kind_weights in weights.values():
        kind_weights[0] = 0.0
    cumulated = {kind: np.cumsum(weight) for kind, weight in weights.items()}
    cumulated = {kind: np.cumsum(weight) for kind, weight in weights.items()}
    users = np.sort(windows.filter("prompted")["user_index"].to_numpy())
    size = max(1, min(MAX_BLOCK, CELLS // (sequences.n_items + 1)))
    taken = np.zeros((size, sequences.n_items + 1), dtype=bool)
    taken[:, 0] = True
    lists: list[np.ndarray] = []
    for start in range(0, len(users), size):
        progress(start, len(users), "candidates")
        block = users[start : start + size]
        own = _taken_by(sequences, block)
        taken[own] = True
        drawn = [
            _block([stream(config.seed, "candidates", kind, user) for user in block.tolist()],
                   weights[kind], cumulated[kind], taken[: len(block)], config.n_negatives)
            for kind in weights
        ]  # fmt: skip
        lists += itertools.chain.from_iterable(zip(*drawn, strict=True))
        taken[own] = False
    progress(len(users), len(users), "candidates")
    table = pl.DataFrame(
        {
            "user_index": np.repeat(users, len(weights)),
            "kind": list(weights) * len(users),
            "negatives": pl.Series(lists, dtype=pl.List(pl.Int32)),
        },
        schema_overrides=CANDIDATES,
    )
    return check_table(table, CANDIDATES, "candidates").rechunk()


def count_short(candidates: pl.DataFrame, config: SplitsConfig) -> dict[str, int]:
    """Users whose list is shorter than n_negatives, by kind ('short_uniform'); zeros left out."""
    short = candidates.filter(pl.col("negatives").list.len() < config.n_negatives)
    kinds = short["kind"].value_counts().sort("kind").iter_rows()
    return {f"short_{kind}": n for kind, n in kinds}


def history_popularity(sequences: Sequences, windows: pl.DataFrame) -> np.ndarray:
    """How often each item stands in a history window, int64 [n_items + 1] (0 at padding)."""
    fit_start = windows.sort("user_index")["fit_start"].to_numpy()
    return sequences.before(fit_start).counts()


def _taken_by(sequences: Sequences, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and item of all that `users` [B] ever took; the row is the user's place in `users`."""
    lengths = sequences.lengths[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, sequences.items[np.repeat(sequences.offsets[users], lengths) + within]


def _block(
    generators: list[np.random.Generator],
    weights: np.ndarray,
    cumulated: np.ndarray,
    taken: np.ndarray,
    n: int,
) -> list[np.ndarray]:
    """For each row of `taken` [B, n_items + 1] `n` distinct untaken items, in order of drawing.

    They are successive weighted draws: of repeated draws from all items, repeats and taken ones
    are skipped. First only as many are looked at as mostly suffice; what they leave open is
    completed row by row.
    """
    tries = np.empty((len(generators), 2 * n + 16))
    for row, generator in enumerate(generators):
        generator.random(out=tries[row])
    lists: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(generators)
    left = np.arange(len(generators))
    for width in (n + n // 8 + 8, tries.shape[1]):
        drawn = np.searchsorted(cumulated, tries[left, :width] * cumulated[-1], side="right")
        drawn = np.minimum(drawn, len(weights) - 1)
        new = _first_untaken(drawn, taken, left)
        counts = new.sum(axis=1)
        parts = np.split(drawn[new], np.cumsum(counts)[:-1])
        for row, items in zip(left.tolist(), parts, strict=True):
            lists[row] = items[:n]
        left = left[counts < n]
        if not len(left):
            break
    for row in left.tolist():
        lists[row] = _completed(generators[row], weights, taken[row], lists[row], n)
    return lists


def _first_untaken(drawn: np.ndarray, taken: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether each of `drawn` [R, W] is untaken in its row of `taken`, and there for once."""
    cells = rows[:, None] * taken.shape[1] + drawn
    order = np.broadcast_to(np.arange(drawn.shape[1], dtype=np.int16), drawn.shape)
    first = np.empty(taken.shape, dtype=np.int16)
    backwards = cells[:, ::-1].ravel()  # of what is written twice the last stays: the first drawn
    first.ravel()[backwards] = order[:, ::-1].ravel()
    found: np.ndarray = (first.ravel()[cells] == order) & ~taken.ravel()[cells]
    return found


def _completed(
    generator: np.random.Generator,
    weights: np.ndarray,
    taken: np.ndarray,
    drawn: np.ndarray,
    n: int,
) -> np.ndarray:
    """`drawn`, and as many of the other untaken items as make `n`, or all.

    Gumbel keys over the rest are successive draws without replacement, too (Efraimidis and
    Spirakis 2006), at the cost of one pass over the catalogue.
    """
    rest = ~taken
    rest[drawn] = False
    others = np.flatnonzero(rest)
    keys = generator.gumbel(size=len(others))
    popular = weights[others] > 0
    keys[popular] += np.log(weights[others][popular])
    order = np.lexsort((-keys, ~popular))
    return np.concatenate([drawn, others[order[: n - len(drawn)]]])
