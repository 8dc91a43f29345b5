"""The leakage guard of pairs: what may be chosen and rejected, and which oracle may judge it."""

from typing import NoReturn

import numpy as np
import polars as pl

from recalign.errors import LeakageError
from recalign.schemas import INTERACTIONS, REJECTIONS, check_table
from recalign.splits.timelines import Timelines


def check_rejections(rejections: pl.DataFrame, interactions: pl.DataFrame) -> int:
    """The number of pairs proved; LeakageError names the row (from 0), the user and the item.

    Each row of REJECTIONS: chosen is the user's item at the row's position; the rejected are
    different items, none of them the chosen one or taken earlier; candidates, if there are any,
    hold chosen and rejected, each item once and none that was taken earlier. The prompts are
    proved by `check_window_prompts`.
    """
    timelines = Timelines(check_table(interactions, INTERACTIONS, "interactions"))
    table = check_table(rejections, REJECTIONS, "rejections")
    columns = table.select("user_index", "position", "chosen", "rejected", "candidates")
    for row, (user, position, chosen, rejected, candidates) in enumerate(columns.iter_rows()):
        taken = timelines.items_of(user, 0, position + 1).tolist()
        if len(taken) <= position or chosen != taken[-1]:
            _refuse(row, user, f"its chosen item {chosen} is not the one at position {position}")
        for item in rejected:
            if item in taken:
                where = timelines.where(user, item, position + 1)
                _refuse(row, user, f"rejects item {item} for one at position {position}; {where}")
        listed = [item for item in candidates if item != chosen]
        for item in sorted(set(listed) & set(taken)):
            _refuse(row, user, f"lists item {item}; {timelines.where(user, item, position + 1)}")
        lost = {chosen, *rejected} - set(candidates) if candidates else set()
        repeated = len(set(rejected)) < len(rejected) or len(set(candidates)) < len(candidates)
        if lost or repeated or 0 in candidates or 0 in rejected:
            _refuse(row, user, f"chosen {chosen}, rejected {rejected} and {candidates} do not fit")
    return table.height


def check_judged(users: np.ndarray, positions: np.ndarray, stops: np.ndarray) -> int:
    """The number of pairs proved to be judged by an oracle that has not seen their chosen item.

    stops [n]: the oracle that scores pair b was fitted on positions of its user below stops[b].
    LeakageError where a stop lies behind the pair's position.
    """
    for row in np.flatnonzero(stops > positions)[:1]:
        _refuse(
            int(row),
            int(users[row]),
            f"its chosen item at position {positions[row]} is judged by an oracle that was fitted "
            f"on positions below {stops[row]}",
        )
    return len(users)


def _refuse(row: int, user: int, seen: str) -> NoReturn:
    raise LeakageError(f"rejections, row {row}, user {user}: {seen}")
