"""The strategies: which of the items that a pair leaves free are rejected."""

import numpy as np

from recalign.config import RejectionsStage, Strategy
from recalign.rejections.draft import PairDraft, Picked, Sources
from recalign.rejections.draws import among_nearest, largest, popularity_weights, successive

NOT_ABOVE = "nothing ranked above the truth"


def pick(strategy: Strategy, config: RejectionsStage, sources: Sources, pair: PairDraft) -> Picked:
    """Items for the strategy's slots, of all that are free; fewer where none is left.

    Strategies of `config.ASKS_SFT` read `pair.log_probs`.
    """
    n = pair.slots[strategy]
    match strategy:
        case "self_hard":
            return self_hard(pair, n)
        case "self_softmax":
            return self_softmax(config, pair, n)
        case "semantic":
            return semantic(config, sources, pair, n)
        case "popularity":
            return popularity(config, sources, pair, n)
        case "random":
            return random(pair, n)


def self_hard(pair: PairDraft, n: int) -> Picked:
    """What the SFT model ranks highest; the pair is left out where that is below the chosen."""
    log_probs, places = pair.log_probs, np.flatnonzero(pair.free)
    items = places[largest(log_probs[places], n)]
    below = len(items) > 0 and log_probs[items[0]] <= log_probs[pair.chosen]
    return Picked(items, log_probs, NOT_ABOVE if below else None)


def self_softmax(config: RejectionsStage, pair: PairDraft, n: int) -> Picked:
    """Drawn by the SFT model's own probabilities, flattened by the temperature."""
    items = successive(pair.log_probs / config.temperature, pair.free, n, pair.draws)
    return Picked(items, pair.log_probs)


def semantic(config: RejectionsStage, sources: Sources, pair: PairDraft, n: int) -> Picked:
    """Drawn among the neighbours in text of the chosen item, or of the mean of the history."""
    if config.semantic_to == "target":
        anchor = sources.vectors[pair.chosen]
    else:
        mean = sources.vectors[pair.history].mean(0)
        anchor = mean / max(float(np.linalg.norm(mean)), 1e-12)
    similarity = sources.vectors @ anchor
    items = among_nearest(similarity, pair.free, config.neighbours, n, pair.draws)
    return Picked(items, similarity)


def popularity(config: RejectionsStage, sources: Sources, pair: PairDraft, n: int) -> Picked:
    """Drawn in proportion to a power of popularity; the score is the count."""
    weights = popularity_weights(sources.popularity, config.popularity_alpha)
    return Picked(successive(weights, pair.free, n, pair.draws), sources.popularity)


def random(pair: PairDraft, n: int) -> Picked:
    """Drawn evenly; the score is 0."""
    even = np.zeros(len(pair.free))
    return Picked(successive(even, pair.free, n, pair.draws), even)
