"""How each row of DPO4Rec's table scores the catalogue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalign.evaluation.result_table import ResultRow
from recalign.evaluation.texts.encoded import EncodedTexts
from recalign.seeding import stream

ScoreCases = Callable[[slice], Tensor]
"""Scores of a slice of the cases: [B, S, I+1], S samples per user; column 0 is never ranked."""

Reader = Callable[[Tensor, Tensor], Tensor]
"""A recommender that reads reasonings: states [B, d], vectors [B, S, e] -> [B, S, I+1]."""


@dataclass(frozen=True)
class Backbone:
    """The oracle as tensors: states [U, d], item matrix [I+1, d], item bias [I+1]."""

    states: Tensor
    item_matrix: Tensor
    item_bias: Tensor


@dataclass(frozen=True)
class TextRecommender:
    """An oracle, and what reads reasonings on top of it."""

    backbone: Backbone
    read: Reader

    def alone(self) -> ScoreCases:
        """Its scores without any text."""
        return without_reasoning(self.backbone)

    def given(self, texts: EncodedTexts) -> ScoreCases:
        """Its scores with the users' texts; without one where a text cannot be read."""
        return with_reasonings(self.backbone.states, texts, self.read, self.alone())


def scores_of(
    rows: list[ResultRow],
    popularity: Tensor,
    texts: Mapping[tuple[str, str], EncodedTexts],
    recommenders: Mapping[str, TextRecommender],
    seed: int,
) -> dict[str, ScoreCases]:
    """How each row scores the catalogue, by label.

    popularity [I+1]; texts by (policy, decoding), reasoners under (name, "none"); recommenders by
    ResultRow.recommender.
    """

    def scores(row: ResultRow) -> ScoreCases:
        if row.recommender == "popularity":
            return same_for_all(popularity)
        if row.recommender == "sasrec":
            return recommenders["frozen"].alone()
        if row.policy == "shuffled":
            own = texts["base", row.decoding]
            read = EncodedTexts(own.vectors, shuffled_across_users(own.index, seed))
        else:
            read = texts[row.policy, row.decoding]
        return recommenders[row.recommender].given(read)

    return {row.label: scores(row) for row in rows}


def same_for_all(item_scores: Tensor) -> ScoreCases:
    """Scores that do not depend on the user, such as popularity: item_scores [I+1]."""
    return lambda where: item_scores.expand(where.stop - where.start, 1, -1)


def without_reasoning(oracle: Backbone) -> ScoreCases:
    """The sequential recommender alone: states [U, d] @ item_matrix.T [d, I+1] + bias [I+1]."""
    return lambda where: (oracle.states[where] @ oracle.item_matrix.T + oracle.item_bias)[:, None]


def with_reasonings(
    states: Tensor, texts: EncodedTexts, read: Reader, fallback: ScoreCases
) -> ScoreCases:
    """Scores of `read` on each user's texts; `fallback` where a text cannot be read.

    The states [U, d] are encoded once and shared by all rows.
    """

    def scores(where: slice) -> Tensor:
        index = texts.index[where]
        given = read(states[where], texts.vectors[index.clamp(min=0)])
        unreadable = index < 0
        if unreadable.any():
            given = torch.where(unreadable[:, :, None], fallback(where), given)
        return given

    return scores


def shuffled_across_users(index: Tensor, seed: int) -> Tensor:
    """Every user's samples given to another user, none to their own: index [U, S], U at least 2."""
    if len(index) < 2:
        raise ValueError("reasonings cannot be shuffled across fewer than two users")
    circle = stream(seed, "reasonings shuffled across users").permutation(len(index))
    giver = np.empty_like(circle)
    giver[circle] = np.roll(circle, 1)  # one circle through all users: nobody gives to themselves
    return index[torch.from_numpy(giver).to(index.device)]
