"""Reasonings made worse by degrees: some of each text's sentences are another user's."""

from collections.abc import Callable

import numpy as np
import polars as pl

from recalign.errors import UserError
from recalign.seeding import stream

Split = Callable[[str], list[str]]
"""The sentences of a text."""


def mixed_across_users(
    reasonings: pl.DataFrame, share: float, split: Split, seed: int
) -> pl.DataFrame:
    """Sampled REASONINGS whose usable texts hold 1 - share of own sentences and share of another's.

    Both are drawn at random, the same for every share as far as they go: a larger share takes more
    of the same sentences away. The other text is that of another user with the same sample
    number; at share 1 everyone has exactly that. Where the share of a text is no whole number of
    sentences, one draw of the text's own rounds what goes and what comes, up or down: over many
    texts the share is right, and a text gets no longer or shorter than both it is made of.
    Malformed texts stay as they are and give nothing.
    UserError: fewer than two users have a usable text.
    """
    sampled = reasonings.filter(pl.col("sample") >= 0)
    parts = [sampled.filter(pl.col("malformed").is_not_null())]
    usable = sampled.filter(pl.col("malformed").is_null()).sort("user_index", "sample")
    for part in usable.partition_by("sample", maintain_order=True):
        sample, texts = int(part["sample"][0]), [split(text) for text in part["reasoning"]]
        if len(texts) < 2:
            raise UserError(
                f"evaluation.mixed: of the texts with sample number {sample} one alone is usable,"
                " so that no other user's sentences can be taken: set evaluation.mixed = [], or"
                " raise splits.max_users where it is set, or look at why texts are malformed"
            )
        circle = stream(seed, "sentences of another user", sample).permutation(len(texts))
        givers = np.empty_like(circle)
        givers[circle] = np.roll(circle, 1)  # one circle through all: nobody gives to themselves
        mixed = []
        for user, own, giver in zip(part["user_index"], texts, givers.tolist(), strict=True):
            draw = stream(seed, "sentences mixed", user, sample)
            mixed.append("\n".join(_mix(own, texts[giver], share, draw)))  # a line: one sentence
        parts.append(part.with_columns(reasoning=pl.Series(mixed, dtype=pl.String)))
    return pl.concat(parts)


def _mix(own: list[str], other: list[str], share: float, draw: np.random.Generator) -> list[str]:
    """1 - share of `own`, then share of `other`; what is no whole number is rounded by chance."""
    orders = [draw.permutation(len(sentences)) for sentences in (own, other)]
    up = draw.random()  # one for both: of texts of one length as many come as go
    gone, come = (min(int(share * len(order) + up), len(order)) for order in orders)
    return _some(own, orders[0][: len(own) - gone]) + _some(other, orders[1][:come])


def _some(sentences: list[str], places: np.ndarray) -> list[str]:
    """The sentences at these places, in their order."""
    return [sentences[place] for place in np.sort(places)]
