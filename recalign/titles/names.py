"""Titles as the LLM reads and writes them: every item has its own."""

import unicodedata
from collections import Counter
from itertools import chain, repeat

import polars as pl


def normalised(title: str) -> str:
    """`title` for exact matching: Unicode NFKC, case folded, runs of white space as one blank."""
    folded = unicodedata.normalize("NFKC", title).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def distinct_titles(items: pl.DataFrame) -> list[str]:
    """The title of every item by item_index; place 0 (padding) is "".

    `items` is the ITEMS table. No title has a line break or is empty (an item without one goes by
    its id), and no two are equal when normalised: equal ones all get their item id behind them,
    "Emma [105]", and, if even that does not tell them apart, their item_index.
    """
    table = items.sort("item_index")
    ids = [_one_line(name) for name in table["item_id"]]
    titles = [_one_line(t or "") or name for t, name in zip(table["title"], ids, strict=True)]
    indices = [str(index) for index in table["item_index"]]
    for tags in chain([ids], repeat(indices)):
        counts = Counter(map(normalised, titles))
        if len(counts) == len(titles):
            break
        titles = [
            f"{title} [{tag}]" if counts[normalised(title)] > 1 else title
            for title, tag in zip(titles, tags, strict=True)
        ]
    return ["", *titles]


def _one_line(text: str) -> str:
    return " ".join(text.split())
