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
    number; at share 1 everyone has exactly that. Malformed texts stay as they are and give nothing.
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
            kept = _some(own, 1 - share, draw)
            mixed.append("\n".join(kept + _some(texts[giver], share, draw)))  # a line: one sentence
        parts.append(part.with_columns(reasoning=pl.Series(mixed, dtype=pl.String)))
    return pl.concat(parts)


def _some(sentences: list[str], share: float, draw: np.random.Generator) -> list[str]:
    """A share of the sentences, rounded to the nearest whole number, in their order."""
    order = draw.permutation(len(sentences))
    taken = np.sort(order[: int(share * len(sentences) + 0.5)])
    return [sentences[place] for place in taken]
