"""What a user should know about the data before trusting a result: shares, ties, twin ids."""

import numpy as np
import polars as pl

from recalign.interactions.order import counted

LARGE_SHARE = 0.1
"""Of all rows: what is dropped for one reason, or belongs to one user, is told from here on."""
TIED_SHARE = 0.01
"""Of a user's rows: more of them at the time of the row before make the order doubtful."""


def remarks_on_dropped(dropped: dict[str, int], n_read: int, strange: str) -> list[str]:
    """Reasons that took a large share of the rows; `strange` shows ids that do not match."""
    told = []
    for reason, n in dropped.items():
        if n >= LARGE_SHARE * n_read:
            example = f" ({strange})" if strange and reason == "unknown_item" else ""
            why = reason.replace("_", " ")
            told.append(f"{n / n_read:.0%} of the interactions read are left out: {why}{example}")
    return told


def remarks_on_users(users: np.ndarray, times: np.ndarray, n_users: int) -> list[str]:
    """A user with a large share of all rows, and users whose rows often tie in time.

    users [n] ascending indices, times [n] ascending within a user.
    """
    told = []
    lengths = counted(users, n_users)
    share = lengths.max() / len(users)
    if n_users > 1 / LARGE_SHARE and share >= LARGE_SHARE:
        told.append(f"one user has {share:.0%} of all interactions, as a program would")
    ties = times[1:] == times[:-1]
    ties &= users[1:] == users[:-1]
    tied = int((counted(users[1:][ties], n_users) > TIED_SHARE * lengths).sum())
    if tied:
        told.append(
            f"{tied} of {n_users} users have more than {TIED_SHARE:.0%} of their interactions at "
            "the time of another one: those stand in the order of the source"
        )
    return told


def remarks_on_ids(of: str, ids: pl.Series) -> list[str]:
    """Ids that differ from another one only in case: two names of one user, perhaps."""
    twins = ids.filter(ids.str.to_lowercase().is_duplicated())
    if twins.is_empty():
        return []
    lower = twins[0].lower()
    shown = " and ".join(f"'{one}'" for one in twins if one.lower() == lower)
    return [f"{len(twins)} {of} ids differ from another only in case, as {shown}"]
