"""Fixed lists of items a user never took, drawn once, for list-wise metrics."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from recalign.config import SplitsConfig
from recalign.progress import Progress, silent
from recalign.schemas import CANDIDATES, check_table
from recalign.seeding import Streams
from recalign.sequences import Sequences
from recalign.splits.weighted_draws import WeightedDraws, first_new

BLOCK = 256
"""Most users at once, each of whom has a generator."""
CELLS = 1 << 20
"""Most items at once that users of a block took."""


def draw_candidates(
    sequences: Sequences,
    windows: pl.DataFrame,
    config: SplitsConfig,
    progress: Progress = silent,
) -> pl.DataFrame:
    """CANDIDATES: for each prompted user one list drawn uniformly and one by popularity^alpha.

    Drawn without replacement among the items that the user never took at any position, in the
    order of drawing: the further on in a list by popularity, the less popular. Popularity counts
    history windows only. Every (user, kind) has a random stream of its own: neither other users nor
    their order matter. A list is shorter than n_negatives only where the user left fewer items
    untaken; items without popularity are drawn when no popular one is left.
    """
    popularity = history_popularity(sequences, windows).astype(np.float64)
    weights = {
        "popularity": np.power(popularity, config.popularity_alpha),
        "uniform": np.ones(sequences.n_items + 1),
    }
    for kind_weights in weights.values():
        kind_weights[0] = 0.0
    draws = [WeightedDraws.of(weight) for weight in weights.values()]
    n = config.n_negatives
    widths = [own.enough(n, 2 * n + 16) for own in draws]
    users = np.sort(windows.filter("prompted")["user_index"].to_numpy())
    streams = [Streams(config.seed, "candidates", kind, last=users) for kind in weights]
    lists = np.zeros((len(users), len(weights), n), dtype=np.int32)
    done = 0
    for rows in _blocks(sequences.lengths[users]):
        progress(done, len(users), "candidates")
        block = users[rows]
        taken = sequences.window(block, np.zeros_like(block), sequences.lengths[block])
        for place, own in enumerate(streams):
            lists[rows, place] = _drawn(own[rows], draws[place], taken, widths[place], n)
        done += len(rows)
    progress(len(users), len(users), "candidates")
    table = pl.DataFrame(
        {
            "user_index": np.repeat(users, len(weights)),
            "kind": list(weights) * len(users),
            "negatives": _without_padding(lists.reshape(-1, n)),
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


def _blocks(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of `lengths` [N], longest first, so that a block is padded little."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        stop = start + max(1, min(BLOCK, CELLS // longest))
        yield order[start:stop]
        start = stop


def _drawn(
    generators: list[np.random.Generator],
    draws: WeightedDraws,
    taken: np.ndarray,
    width: int,
    n: int,
) -> np.ndarray:
    """For each row of `taken` [B, L] `n` distinct untaken items in order of drawing, int32 [B, n].

    They are successive weighted draws: of repeated draws from all items, repeats and taken ones
    are skipped. First only `width` of them are looked at, which mostly suffice; what all leave open
    is completed row by row. 0 fills a row where fewer are untaken.
    """
    n_items = len(draws.weights) - 1
    tries = np.empty((len(generators), 2 * n + 16))
    lists = np.zeros((len(generators), n), dtype=np.int32)
    left, start = np.arange(len(generators)), 0
    for stop in (width, tries.shape[1]):
        for row in left.tolist():
            generators[row].random(out=tries[row, start:stop])
        lists[left] = first_new(draws(tries[left, :stop]), taken[left], n, n_items)
        left, start = left[lists[left, -1] == 0], stop
    for row in left.tolist():
        own = _completed(generators[row], draws.weights, taken[row], lists[row][lists[row] > 0], n)
        lists[row, : len(own)] = own
    return lists


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
    rest = np.ones(len(weights), dtype=bool)
    rest[0] = rest[taken] = rest[drawn] = False
    others = np.flatnonzero(rest)
    keys = generator.gumbel(size=len(others))
    popular = weights[others] > 0
    keys[popular] += np.log(weights[others][popular])
    order = np.lexsort((-keys, ~popular))
    return np.concatenate([drawn, others[order[: n - len(drawn)]]])


def _without_padding(lists: np.ndarray) -> pl.Series:
    """Rows of `lists` [N, n] as a column of lists; 0, which ends a row, is left out."""
    column = pl.Series(lists).arr.to_list()
    return column.list.filter(pl.element() > 0) if (lists[:, -1] == 0).any() else column
