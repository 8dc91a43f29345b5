"""Fixed candidate lists: the target and items its user never took, as the splits drew them."""

import numpy as np
import polars as pl

from recalign.evaluation.next_items.cases import Cases
from recalign.seeding import stream

DRAWN = ("uniform", "popularity")
"""How the items of the lists are drawn, see `metric_columns.STARTS`."""


def fixed_lists(cases: Cases, candidates: pl.DataFrame, kind: str, list_length: int) -> np.ndarray:
    """int64 [N, list_length]: the target first, then `list_length` - 1 drawn items of its user.

    `candidates` is the CANDIDATES table. Case t of a user takes the t-th block of the user's drawn
    items, from the first again behind the last: the lists of validation and of the test hold the
    same items, and by popularity a later case has less popular ones. Where a user has fewer than a
    block, the list is 0 padded. ValueError: a case's user has no drawn items.
    """
    drawn = candidates.filter(kind=kind).sort("user_index")
    known = drawn["user_index"].to_numpy()
    rows = np.searchsorted(known, cases.users)
    if len(cases) and (rows.max() >= len(known) or (known[rows] != cases.users).any()):
        raise ValueError(f"a user has no {kind} candidates")
    sizes = drawn["negatives"].list.len().to_numpy().astype(np.int64)
    items = drawn["negatives"].explode(empty_as_null=False).to_numpy().astype(np.int64)
    items = np.append(items, 0)  # the last place pads
    first, size = (np.cumsum(sizes) - sizes)[rows, None], sizes[rows, None]
    columns = np.arange(list_length - 1)
    places = cases.numbers[:, None] * (list_length - 1) + columns
    inside = columns < size
    block = items[np.where(inside, first + places % np.maximum(size, 1), -1)]
    return np.concatenate([cases.targets[:, None], block], 1)


def shown_order(cases: Cases, lists: np.ndarray, kind: str, seed: int) -> list[list[int]]:
    """The lists as they stand in prompts: shuffled, by a stream of each (user, position)."""
    shown = []
    for user, position, items in zip(cases.users, cases.positions, lists, strict=True):
        order = stream(seed, "candidates shown", kind, int(user), int(position))
        shown.append(order.permutation(items[items > 0]).tolist())
    return shown
