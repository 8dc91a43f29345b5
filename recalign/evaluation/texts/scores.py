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
"""What reads texts: cases [B, ...], vectors [B, S, e] -> scores [B, S, I+1]."""


@dataclass(frozen=True)
class Backbone:
    """The oracle as tensors: states [U, d], item matrix [I+1, d], item bias [I+1]."""

    states: Tensor
    item_matrix: Tensor
    item_bias: Tensor


@dataclass(frozen=True)
class TextRecommender:
    """What reads texts, and how it scores without any.

    cases [N, ...]: what `read` takes beside the texts: a user's state, or the number of a list;
    owners int64 [N]: whose texts a case is read with, None where every case is a user.
    """

    cases: Tensor
    read: Reader
    alone: ScoreCases
    owners: Tensor | None = None

    def given(self, texts: EncodedTexts) -> ScoreCases:
        """Its scores with the users' texts; without one where a text cannot be read."""
        index = texts.index if self.owners is None else texts.index[self.owners]
        own = EncodedTexts(texts.vectors, index)
        return with_reasonings(self.cases, own, self.read, self.alone)


def scores_of(
    rows: list[ResultRow],
    plain: Mapping[str, ScoreCases],
    texts: Mapping[tuple[str, str], EncodedTexts],
    recommenders: Mapping[str, TextRecommender],
    seed: int,
) -> dict[str, ScoreCases]:
    """How each row scores its cases, by label.

    plain: what reads no text, and recommenders: what does, both by ResultRow.recommender; texts by
    (policy, decoding), reasoners under (name, "none").
    """

    def scores(row: ResultRow) -> ScoreCases:
        if row.recommender in plain:
            return plain[row.recommender]
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
    cases: Tensor, texts: EncodedTexts, read: Reader, fallback: ScoreCases
) -> ScoreCases:
    """Scores of `read` on each case's texts; `fallback` where a text cannot be read.

    The cases [N, ...], such as states of users, are encoded once and shared by all rows.
    """

    def scores(where: slice) -> Tensor:
        index = texts.index[where]
        given = read(cases[where], texts.vectors[index.clamp(min=0)].to(cases.device))
        unreadable = index < 0
        if unreadable.any():
            hidden = unreadable[:, :, None].to(given.device)
            given = torch.where(hidden, fallback(where), given)
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
