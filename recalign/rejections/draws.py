"""How each strategy picks items among those a row leaves free: pure draws from the row's stream."""

import numpy as np

from recalign.config import Strategy

LEAST = -100.0
"""Log weight of an item that nobody took: it is drawn when no other is left, since below any other
that is, the noise of `successive` (which lies in -4..37) added or not."""


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32 [I+1, e]; a zero row stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def popularity_weights(popularity: np.ndarray, alpha: float) -> np.ndarray:
    """log popularity^alpha, float64 [I+1], of counts [I+1]; LEAST where the count is 0.

    alpha 0: 0 everywhere, all are drawn evenly.
    """
    logs = alpha * np.log(np.maximum(popularity, 1))
    return np.where((popularity > 0) | (alpha == 0), logs, LEAST)


def successive(
    log_weights: np.ndarray, free: np.ndarray, n: int, draws: np.random.Generator
) -> np.ndarray:
    """At most `n` of the free places [I] in the order of successive weighted draws, int64.

    Draws without replacement, each in proportion to exp(log_weights) [I] of what is left: the n
    largest log weights with Gumbel noise added (Gumbel-top-k; Yellott 1977, 1903.06059).
    """
    places = np.flatnonzero(free)
    keys = log_weights[places] + draws.gumbel(size=len(places))
    return places[largest(keys, n)]


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Places of the `n` largest values [I], largest first; the lower place first among equals."""
    if n < len(values):
        cut = np.partition(values, len(values) - n)[len(values) - n]
        places = np.flatnonzero(values >= cut)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:n]


def among_nearest(
    similarity: np.ndarray, free: np.ndarray, neighbours: int, n: int, draws: np.random.Generator
) -> np.ndarray:
    """At most `n` drawn uniformly of the `neighbours` free places most similar, int64."""
    places = np.flatnonzero(free)
    near = places[largest(similarity[places], neighbours)]
    return near[draws.permutation(len(near))[:n]]


def draw_slots(
    weights: dict[Strategy, float], n_rejected: int, draws: np.random.Generator
) -> dict[Strategy, int]:
    """How many of a row's rejected each strategy is to give: one draw by weight per rejected.

    A strategy that then finds too little leaves the row out, see `PairDraft.reject`.
    """
    shares = np.array(list(weights.values()), dtype=np.float64)
    places = draws.choice(len(shares), n_rejected, p=shares / shares.sum())
    counts = np.bincount(places, minlength=len(shares)).tolist()
    return {name: n for name, n in zip(weights, counts, strict=True) if n}
