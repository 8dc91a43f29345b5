"""Fixed lists of items a user never took, drawn once, for list-wise metrics."""

import numpy as np
import polars as pl

from recalign.config import SplitsConfig
from recalign.schemas import CANDIDATES, check_table
from recalign.seeding import stream
from recalign.sequences import Sequences


def draw_candidates(
    sequences: Sequences, windows: pl.DataFrame, config: SplitsConfig
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
    users = np.sort(windows.filter("prompted")["user_index"].to_numpy())
    taken = np.zeros(sequences.n_items + 1, dtype=bool)
    taken[0] = True
    lists = []
    for user in users.tolist():
        own = sequences.slice(user, 0, int(sequences.lengths[user]))
        taken[own] = True
        for kind in weights:
            generator = stream(config.seed, "candidates", kind, user)
            lists.append(
                _draw(generator, weights[kind], cumulated[kind], taken, config.n_negatives)
            )
        taken[own] = False
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


def _draw(
    generator: np.random.Generator,
    weights: np.ndarray,
    cumulated: np.ndarray,
    taken: np.ndarray,
    n: int,
) -> np.ndarray:
    """`n` distinct untaken items in the order of successive weighted draws.

    Repeated draws from all items, repeats and taken ones skipped, are successive draws without
    replacement; what they leave open is completed by Gumbel keys over the rest, which is the same
    distribution (Efraimidis and Spirakis 2006) at the cost of one pass over the catalogue.
    """
    tries = generator.random(2 * n + 16) * cumulated[-1]
    items = np.searchsorted(cumulated, tries, side="right")
    items = np.minimum(items, len(weights) - 1)
    items = items[~taken[items]]
    _, first = np.unique(items, return_index=True)
    chosen = items[np.sort(first)][:n]
    if len(chosen) == n:
        return chosen
    rest = ~taken
    rest[chosen] = False
    others = np.flatnonzero(rest)
    keys = generator.gumbel(size=len(others))
    popular = weights[others] > 0
    keys[popular] += np.log(weights[others][popular])
    order = np.lexsort((-keys, ~popular))
    return np.concatenate([chosen, others[order[: n - len(chosen)]]])
