"""Five rule-based reasoners of different quality: from a history to preferences as text."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl

from recalign.embedded.grammar import facet_order, write_reasoning
from recalign.errors import UserError
from recalign.seeding import stream
from recalign.words import one_word

Reasoner = Literal["lift", "counts", "last", "popular", "random"]
REASONERS: tuple[Reasoner, ...] = get_args(Reasoner)
HALF_LIFE = 9.0  # items after which the weight of an older item has halved (lift)
SHORT_HISTORY = 4  # in shorter histories a value seen once is worth a sentence
CHUNK = 1 << 22  # draws in memory at once (popular, random)


@dataclass(frozen=True)
class Facets:
    """The items' attribute values as codes 0..V-1, sorted by facet in the order of sentences."""

    names: list[str]
    facet: np.ndarray  # [V] facet of each code
    words: list[str]  # [V] the value as one word
    values: list[str]  # [V] the value as the items have it; the first of those that give one word
    item_codes: np.ndarray  # [n_items + 1, A]; V where an item has fewer than A values
    share: np.ndarray  # [V] share of items that have the value


def facets_of(items: pl.DataFrame) -> Facets:
    """Read the facets of the ITEMS table; UserError when no item has any attribute."""
    values = (
        items.select("item_index", "attributes")
        .explode("attributes")
        .drop_nulls()
        .unnest("attributes")
        .with_columns(word=pl.col("value").map_elements(one_word, return_dtype=pl.String))
        .unique(["item_index", "name", "word"], maintain_order=True)
    )
    names = facet_order(values["name"].unique().to_list())
    if not names:
        raise UserError(
            "the rule-based reasoners need items with attributes (genre, category, ...), "
            "but no item has any: of your own files name interactions.files.items and "
            "attribute_columns, or use an LLM that reads titles (policy.kind = huggingface)"
        )
    order = pl.DataFrame({"name": names, "facet": range(len(names))})
    values = values.join(order, on="name", maintain_order="left")
    codes = values.unique(["facet", "word"], keep="first", maintain_order=True)
    codes = codes.select("facet", "word", "value").sort("facet", "word").with_row_index("code")
    values = values.drop("value").join(codes, on=["facet", "word"], maintain_order="left")
    values = values.with_columns(slot=pl.int_range(pl.len()).over("item_index"))
    rows, columns = values["item_index"].to_numpy(), values["slot"].to_numpy()
    table = np.full((int(items["item_index"].max()) + 1, int(columns.max()) + 1), len(codes))  # type: ignore[arg-type]
    table[rows, columns] = values["code"].to_numpy()
    share = np.bincount(values["code"].to_numpy(), minlength=len(codes)) / len(items)
    told = codes["word"].to_list(), codes["value"].to_list()
    return Facets(names, codes["facet"].to_numpy(), *told, table, share)


def reasonings_by_rule(
    name: Reasoner, facets: Facets, histories: list[np.ndarray], seed: int
) -> list[str]:
    """What the reasoner `name` writes about each history (item indices, oldest first).

    lift: values over-represented against the catalogue, recent items counting more; counts: the
    most frequent values; last: the values of the last items; popular: values drawn by their
    frequency over all `histories`; random: values drawn evenly. Lift and counts leave out what
    was seen only once (the first facet excepted). `seed` matters to popular and random alone;
    a history without any attribute gives ''.
    """
    match name:
        case "popular" | "random":
            rows, codes, _, _ = _occurrences(facets, histories)
            popular = np.bincount(codes, minlength=len(facets.words))
            rng = stream(seed, "templates", name)
            drawn = _drawn(facets, len(histories), rng, popular if name == "popular" else None)
            told = np.isin(drawn[0], rows)  # nothing is said of a history without attributes
            row, code, score = (part[told] for part in drawn)
        case "counts" | "last" | "lift":
            row, code, score = _seen_scores(name, facets, histories)
    return _texts(facets, len(histories), row, code, score)


def _seen_scores(
    name: Literal["counts", "last", "lift"], facets: Facets, histories: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, code and score of every value that these reasoners may name, [S] each."""
    rows, codes, ages, totals = _occurrences(facets, histories)
    n_values = len(facets.words)
    keys, inverse = np.unique(rows * n_values + codes, return_inverse=True)
    seen = np.bincount(inverse)
    recent = np.full(len(keys), np.inf)
    np.minimum.at(recent, inverse, ages)  # age of the value's latest occurrence
    row, code = keys // n_values, keys % n_values
    if name == "last":
        return row, code, -recent
    if name == "counts":
        score = seen - recent / (1 + recent)  # the more recent wins a tie
    else:
        weight = np.bincount(inverse, weights=0.5 ** (ages / HALF_LIFE))
        expected = facets.share[code] * totals[row]
        score = (weight - expected) / np.sqrt(expected + 1)
    lengths = np.array([len(history) for history in histories])
    keep = (seen > 1) | (lengths[row] < SHORT_HISTORY) | (facets.facet[code] == 0)
    return row[keep], code[keep], score[keep]


def strongest_values(
    facets: Facets, histories: list[np.ndarray], n: int
) -> list[dict[str, list[str]]]:
    """For each history the at most `n` values of every facet that lift puts first, best first.

    Facets without a value are left out.
    """
    row, code, score = _seen_scores("lift", facets, histories)
    facet = facets.facet[code]
    liked: list[dict[str, list[str]]] = [{} for _ in histories]
    for place in np.lexsort((code, -score, facet, row)).tolist():
        words = liked[row[place]].setdefault(facets.names[facet[place]], [])
        if len(words) < n:
            words.append(facets.values[code[place]])
    return liked


def _occurrences(
    facets: Facets, histories: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every attribute value in every history: rows [E], codes [E], ages [E] (0: the last item).

    Also the sum of each history's recency weights, float64 [H].
    """
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    items = np.concatenate([np.zeros(0, dtype=np.int64), *histories]).astype(np.int64)
    rows = np.repeat(np.arange(len(histories)), lengths)
    ages = np.cumsum(lengths)[rows] - 1 - np.arange(len(items))
    totals = np.bincount(rows, weights=0.5 ** (ages / HALF_LIFE), minlength=len(histories))
    codes = facets.item_codes[items]
    event, column = np.nonzero(codes < len(facets.words))
    return rows[event], codes[event, column], ages[event], totals


def _drawn(
    facets: Facets, n: int, rng: np.random.Generator, counts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `n` texts one value of every facet, by the Gumbel maximum.

    counts: [V] weights of the values, None: even. Returns rows, codes, scores.
    """
    logits = np.zeros(len(facets.words)) if counts is None else np.log(counts + 1e-9)
    drawn = []
    step = max(1, CHUNK // len(logits))
    for start in range(0, n, step):
        size = min(step, n - start)
        keys = logits + rng.gumbel(size=(size, len(logits)))
        for facet in range(len(facets.names)):
            codes = np.flatnonzero(facets.facet == facet)
            top = codes[keys[:, codes].argmax(1)]
            rows = np.arange(size)
            drawn.append((rows + start, top, keys[rows, top]))
    rows, codes, scores = (np.concatenate(part) for part in zip(*drawn, strict=True))
    return rows, codes, scores


def _texts(
    facets: Facets, n: int, rows: np.ndarray, codes: np.ndarray, scores: np.ndarray
) -> list[str]:
    """A sentence of the best-scored value of each row and facet; ties go to the lower code.

    One value per sentence: a small LM takes long to learn not to name the same value twice.
    """
    facet = facets.facet[codes]
    order = np.lexsort((codes, -scores, facet, rows))
    group = rows[order] * len(facets.names) + facet[order]
    best = order[np.diff(group, prepend=-1) != 0]
    values: list[dict[str, list[str]]] = [{} for _ in range(n)]
    for row, code in zip(rows[best].tolist(), codes[best].tolist(), strict=True):
        values[row][facets.names[facets.facet[code]]] = [facets.words[code]]
    return [write_reasoning(found) for found in values]
