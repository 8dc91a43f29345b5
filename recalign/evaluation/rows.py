"""One row of the result table: metrics per user of whatever gives scores to the catalogue."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.evaluation.list_metrics import CandidateLists, list_metrics
from recalign.metrics import metric_table
from recalign.ranking import target_ranks, top_items
from recalign.seeding import stream

CHUNK_SCORES = 1 << 23  # scores held at a time: 32 MB in float32

Scores = Callable[[slice], Tensor]
"""Scores of a slice of the cases: [B, S, I+1], S samples per user; column 0 is never ranked."""

Reader = Callable[[Tensor, Tensor], Tensor]
"""A recommender that reads reasonings: states [B, d], vectors [B, S, e] -> [B, S, I+1]."""


@dataclass(frozen=True)
class Row:
    """Whose reasonings, how decoded, read by which recommender, and what it is compared with."""

    label: str
    policy: str  # none, shuffled, a template's name, or a policy: base, aligned
    decoding: Literal["none", "greedy", "sampled"]
    recommender: str  # popularity, sasrec, frozen (fitted on the base policy's texts), refitted
    base: str | None = None  # label of the row it is compared with


@dataclass(frozen=True)
class Cases:
    """The users of an evaluation, in one order for all rows.

    users [U] user_index; targets [U, T] and seen [U, L] item indices, 0 padded, on any device.
    """

    users: np.ndarray
    targets: Tensor
    seen: Tensor
    lists: CandidateLists | None = None

    def __post_init__(self) -> None:
        if not len(self.users) == len(self.targets) == len(self.seen):
            raise ValueError("users, targets and seen differ in length")
        if without := int((self.targets <= 0).all(1).sum()):
            raise ValueError(f"{without} users have no target: leave them out, and count them")

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Texts:
    """Encoded reasonings: vectors [n, e] of distinct texts, and index [U, S] into them.

    An index of -1 stands for a text that cannot be read: that sample is scored without one.
    """

    vectors: Tensor
    index: Tensor


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate_row` measures.

    per_user has the columns row, user_index and one per metric; metrics over candidate lists are
    named "list NDCG@10". recommended int64 [U, k] is the head of every user's list (of the first
    sample where there are several), for coverage, Gini and popularity.
    """

    per_user: pl.DataFrame
    recommended: np.ndarray


def evaluate_rows(
    rows: dict[Row, Scores], cases: Cases, cutoffs: list[int], top_k: int = 10
) -> dict[str, Evaluated]:
    """`evaluate_row` for every row, by label."""
    labels = [row.label for row in rows]
    if len(set(labels)) < len(labels):
        raise ValueError("two rows have the same label")
    return {
        row.label: evaluate_row(row.label, scores, cases, cutoffs, top_k)
        for row, scores in rows.items()
    }


@torch.no_grad()
def evaluate_row(
    label: str, scores: Scores, cases: Cases, cutoffs: list[int], top_k: int = 10
) -> Evaluated:
    """Full-catalogue metrics with seen items filtered, and metrics over the candidate lists.

    `scores` is asked for chunks of users of a size that bounds memory. A user with several
    samples gets the mean of each metric over them: what one reasoning is worth on average.
    """
    tables: list[dict[str, np.ndarray]] = []
    heads: list[np.ndarray] = []
    for where, given in _chunks(scores, len(cases)):
        n_users, n_samples, width = given.shape
        flat = given.reshape(n_users * n_samples, width)
        seen, targets = (table[where].to(given.device) for table in (cases.seen, cases.targets))
        ranks = target_ranks(
            flat,
            targets.repeat_interleave(n_samples, 0),
            seen.repeat_interleave(n_samples, 0),
        )
        table = metric_table(ranks.cpu(), (ranks > 0).sum(1).cpu(), cutoffs)
        if cases.lists is not None:
            table |= list_metrics(flat, cases.lists.of(where, n_samples, given.device), cutoffs)
        tables.append(
            {name: values.reshape(n_users, n_samples).mean(1) for name, values in table.items()}
        )
        heads.append(top_items(given[:, 0], seen, top_k).cpu().numpy())
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    users = pl.Series("user_index", cases.users, dtype=pl.Int32)
    per_user = pl.DataFrame([users, *(pl.Series(name, column) for name, column in columns.items())])
    return Evaluated(per_user.insert_column(0, pl.lit(label).alias("row")), np.concatenate(heads))


def same_for_all(item_scores: Tensor) -> Scores:
    """Scores that do not depend on the user, such as popularity: item_scores [I+1]."""
    return lambda where: item_scores.expand(where.stop - where.start, 1, -1)


def without_reasoning(states: Tensor, item_matrix: Tensor, item_bias: Tensor) -> Scores:
    """The sequential recommender alone: states [U, d] @ item_matrix.T [d, I+1] + bias [I+1]."""
    return lambda where: (states[where] @ item_matrix.T + item_bias)[:, None]


def with_reasonings(states: Tensor, texts: Texts, read: Reader, fallback: Scores) -> Scores:
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


def _chunks(scores: Scores, n_users: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of users and their scores, sized after the first user's."""
    width = scores(slice(0, 1)).numel()
    step = max(1, CHUNK_SCORES // width)
    for start in range(0, n_users, step):
        where = slice(start, min(start + step, n_users))
        yield where, scores(where)
