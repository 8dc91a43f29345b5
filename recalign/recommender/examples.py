"""What the recommender is fitted on: targets of the fit window and their users' texts."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor


def text_grid(
    user_index: np.ndarray, samples: np.ndarray, text_rows: np.ndarray, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The long table (user, sample, row of its text vector), all [n], as one line per user.

    Returns text_rows int64 [U, R] and samples int16 [U, R] in the order of `users` [U] (distinct)
    and, within a user, of the sample numbers; text_rows is -1 after a user's last text. Rows of
    users that are not in `users` are left out.
    """
    if not len(user_index):
        return np.full((len(users), 1), -1), np.zeros((len(users), 1), dtype=np.int16)
    order = np.lexsort((samples, user_index))
    first = np.searchsorted(user_index[order], users, side="left")
    counts = np.searchsorted(user_index[order], users, side="right") - first
    slots = np.arange(int(counts.max(initial=1)))
    inside = slots < counts[:, None]
    places = order[np.where(inside, first[:, None] + slots, 0)]
    grid = np.where(inside, text_rows[places], -1).astype(np.int64)
    return grid, np.where(inside, samples[places], 0).astype(np.int16)


@dataclass(frozen=True)
class ItemVectors:
    """The catalogue: matrix [I+1, d] and bias [I+1] of the sequence model, text [I+1, e]."""

    matrix: Tensor
    bias: Tensor
    text: np.ndarray


@dataclass(frozen=True)
class TextExamples:
    """What a recommender is fitted on, a row per example; U users own them and have T texts.

    users [U] user indices; tensors on one device: texts [T, e] float32, shared by all; text_rows
    [U, R] int64 rows of texts, -1 after a user's last text (see `text_grid`); owners [E] in 0..U-1.
    Every user has a text and an example (ValueError).
    """

    users: np.ndarray
    texts: Tensor
    text_rows: Tensor
    owners: Tensor

    PER_EXAMPLE: ClassVar[tuple[str, ...]] = ()
    """Fields with one row per example, beside owners."""

    def __post_init__(self) -> None:
        leading = torch.arange(self.text_rows.shape[1], device=self.counts.device)
        leading = leading < self.counts[:, None]
        if not torch.equal(self.text_rows >= 0, leading) or not self.counts.all():
            raise ValueError("every user needs a text, and -1 may only follow the last one")
        if len(self.users) != len(self.text_rows) or len(self.owners.unique()) != len(self.users):
            raise ValueError("every user needs a row of texts and at least one example")
        if any(len(getattr(self, name)) != len(self.owners) for name in self.PER_EXAMPLE):
            raise ValueError(f"owners, {', '.join(self.PER_EXAMPLE)}: not one row per example")

    @cached_property
    def counts(self) -> Tensor:
        """The number of texts per user, int64 [U]."""
        return (self.text_rows >= 0).sum(1)

    def of_users(self, chosen: np.ndarray) -> Self:
        """The part of the users `chosen` (rows of text_rows), renumbered from 0 in that order."""
        users = torch.from_numpy(chosen).to(self.owners.device)
        place = torch.full_like(self.counts, -1)
        place[users] = torch.arange(len(users), device=users.device)
        rows = (place[self.owners] >= 0).nonzero()[:, 0]
        return replace(
            self,
            users=self.users[chosen],
            text_rows=self.text_rows[users],
            owners=place[self.owners[rows]],
            **{name: getattr(self, name)[rows] for name in self.PER_EXAMPLE},
        )

    def all_texts(self) -> Tensor:
        """Vectors of every user's texts, one after the other [n, e]."""
        return self.texts[self.text_rows[self.text_rows >= 0]]

    def grid(self) -> Tensor:
        """Vectors [U, R, e]; users with fewer than R texts repeat theirs."""
        slots = torch.arange(self.text_rows.shape[1], device=self.counts.device)
        return self.texts[self.text_rows.gather(1, slots % self.counts[:, None])]

    def drawn(self, examples: Tensor, draws: Tensor) -> Tensor:
        """Vectors [B, e] of one text per example, picked by draws [B] uniform in [0, 1)."""
        owners = self.owners[examples]
        return self.texts[self.text_rows[owners, (draws * self.counts[owners]).long()]]


@dataclass(frozen=True)
class FitExamples(TextExamples):
    """An example is a target of the fit window, ranked in the whole catalogue.

    states [E, d] float32 of the sequence model just before the target; targets [E] item indices;
    taken [n]: the items of all users, one user after another, of which the user of example e has
    seen n_seen[e] from place first[e] on. A table of all that is seen would be as wide as the
    longest history.
    """

    states: Tensor
    targets: Tensor
    first: Tensor
    n_seen: Tensor
    taken: Tensor

    PER_EXAMPLE = ("states", "targets", "first", "n_seen")

    def seen(self, rows: slice | Tensor) -> Tensor:
        """Items before the targets of these examples, int64 [B, L], 0 padded."""
        counts = self.n_seen[rows][:, None]
        columns = torch.arange(max(1, int(counts.max())), device=counts.device)
        places = self.first[rows][:, None] + columns
        inside = columns < counts
        return torch.where(inside, self.taken[torch.where(inside, places, 0)], 0)


@dataclass(frozen=True)
class ListExamples(TextExamples):
    """An example is a list to re-rank.

    items [E, L] item indices; positive [E, L] bool, at least one in each row; places [E, L] int64:
    each item's place, from 0, in the order that the sequence model gives the list.
    """

    items: Tensor
    positive: Tensor
    places: Tensor

    PER_EXAMPLE = ("items", "positive", "places")
