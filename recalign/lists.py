"""Lists to re-rank, as arrays: whose they are, their items, and which of them belong first."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Lists:
    """Lists of one length L, a user's in order of time.

    owners int64 [N]: rows of the users that the lists are read for; items int64 [N, L]; positive
    bool [N, L].
    """

    owners: np.ndarray
    items: np.ndarray
    positive: np.ndarray

    @classmethod
    def of(cls, table: pl.DataFrame, users: np.ndarray) -> "Lists":
        """The LISTS of `users` [U], in ascending order; those of others are left out."""
        own = table.filter(pl.col("user_index").is_in(users.tolist()))
        own = own.sort("user_index", "position")
        length = len(own["items"][0]) if own.height else 0
        items = own["items"].list.to_array(length).to_numpy().reshape(-1, length)
        positive = own["positive"].list.to_array(length).to_numpy().reshape(-1, length)
        owners = np.searchsorted(users, own["user_index"].to_numpy())
        return cls(owners.astype(np.int64), items.astype(np.int64), positive.astype(bool))

    def __len__(self) -> int:
        return len(self.owners)

    def counts(self, n_users: int) -> np.ndarray:
        """The number of lists of each user, int64 [n_users]."""
        return np.bincount(self.owners, minlength=n_users)

    def rows(self, chosen: np.ndarray) -> "Lists":
        """These lists alone (indices or bool [N])."""
        return replace(
            self,
            owners=self.owners[chosen],
            items=self.items[chosen],
            positive=self.positive[chosen],
        )

    def positives(self, n_users: int) -> list[np.ndarray]:
        """The items that belong first in each user's lists, n_users arrays."""
        owners = np.repeat(self.owners, self.positive.sum(1))
        stops = np.cumsum(np.bincount(owners, minlength=n_users))
        return np.split(self.items[self.positive], stops[:-1])

    def with_positives(self) -> "Lists":
        """The lists in which something belongs first."""
        return self.rows(np.asarray(self.positive.any(1)))

    def of_users(self, places: np.ndarray) -> "Lists":
        """The lists of the users at `places` [P], numbered by their place in it."""
        number = np.full(int(max(self.owners.max(initial=0), places.max(initial=0))) + 1, -1)
        number[places] = np.arange(len(places))
        kept = self.rows(number[self.owners] >= 0)
        order = np.argsort(number[kept.owners], kind="stable")
        return replace(kept.rows(order), owners=number[kept.owners][order])

    def targets(self) -> np.ndarray:
        """The places from 1 of the positive items, int64 [N, L], 0 at the others.

        With scores [N, L + 1] whose column 0 means nothing, a list is a catalogue of L items.
        """
        places = np.arange(1, self.items.shape[1] + 1)
        return np.where(self.positive, places, 0)
