"""Interactions as the guard reads them: on its own, and proved to be in order of time."""

from typing import NoReturn

import numpy as np
import polars as pl

from recalign.errors import LeakageError
from recalign.splits.windows import STARTS


class Timelines:
    """Items and times of all users by position; LeakageError where a user is out of order.

    `items[offsets[u] + p]` is the item of user `u` at position `p`.
    """

    def __init__(self, interactions: pl.DataFrame) -> None:
        self.users = interactions["user_index"].to_numpy().astype(np.int64)
        self.items = interactions["item_index"].to_numpy().astype(np.int64)
        self.timestamps = interactions["timestamp"].to_numpy()
        self.positions = interactions["position"].to_numpy().astype(np.int64)
        self.lengths = np.bincount(self.users)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._check_order()

    @property
    def n_users(self) -> int:
        return len(self.lengths)

    def items_of(self, user: int, start: int, stop: int) -> np.ndarray:
        """Items of `user` at positions start..stop-1, clipped to the sequence."""
        first, last = int(self.offsets[user]), int(self.offsets[user + 1])
        return self.items[first + max(start, 0) : min(first + stop, last)]

    def where(self, user: int, item: int, cutoff: int) -> str:
        """When the user took `item`, told with respect to `cutoff`."""
        taken = np.flatnonzero(self.items_of(user, 0, int(self.lengths[user])) == item)
        if not len(taken):
            return "the user never took it"
        late = taken[taken >= cutoff]
        if len(late):
            return f"the user took it at position {late[0]}, not below the cut-off {cutoff}"
        return f"the user took it at position {taken[0]}"

    def _check_order(self) -> None:
        same_user = self.users[1:] == self.users[:-1]
        expected = np.arange(len(self.users)) - self.offsets[self.users]
        for row in np.flatnonzero(self.positions != expected)[:1]:
            self._refuse(row, f"is at position {self.positions[row]} instead of {expected[row]}")
        backwards = same_user & (self.timestamps[1:] < self.timestamps[:-1])
        for row in np.flatnonzero(backwards)[:1] + 1:
            self._refuse(row, f"is of time {self.timestamps[row]}, earlier than the row before")

    def check_windows(self, windows: pl.DataFrame, protocol: str) -> None:
        """Windows of every user in order and within the sequence.

        temporal: they start at the same moments; kar: each user has at most one.
        """
        if windows["user_index"].to_list() != list(range(self.n_users)):
            raise LeakageError(f"windows: not one row for each user 0..{self.n_users - 1} in order")
        starts = windows.select(*STARTS, "end").to_numpy().astype(np.int64)
        ordered = (np.diff(starts, axis=1) >= 0).all(axis=1) & (starts[:, 0] >= 0)
        for user in np.flatnonzero(~ordered | (starts[:, -1] != self.lengths))[:1]:
            raise LeakageError(
                f"windows, row {user}, user {user}: windows {starts[user].tolist()} "
                f"are not in order or do not end at the sequence's end {self.lengths[user]}"
            )
        if protocol == "kar":
            several = (np.diff(starts, axis=1) > 0).sum(1) > 1
            for user in np.flatnonzero(several)[:1]:
                raise LeakageError(
                    f"windows, row {user}, user {user}: has several windows, where users are "
                    f"given whole to one of them: {starts[user].tolist()}"
                )
        if protocol == "temporal":
            for place, name in enumerate(STARTS):
                self._check_moment(starts[:, place], name)

    def _check_moment(self, starts: np.ndarray, name: str) -> None:
        """Everything before the window, of any user, is earlier than everything from it on."""
        inside = self.positions >= starts[self.users]
        if not inside.any():
            return
        moment = self.timestamps[inside].min()
        late = ~inside & (self.timestamps >= moment)
        for row in np.flatnonzero(late)[:1]:
            self._refuse(
                row,
                f"is of time {self.timestamps[row]} and before the user's {name}, while another "
                f"user's window has an interaction of time {moment}",
            )

    def _refuse(self, row: int, problem: str) -> NoReturn:
        raise LeakageError(
            f"interactions, row {row}, user {self.users[row]}: item {self.items[row]} {problem}"
        )
