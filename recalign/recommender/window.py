"""The fit window as examples: every target or list of it, and its user's texts."""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.errors import FailedRoundError
from recalign.lists import Lists
from recalign.recommender.examples import FitExamples, ListExamples, text_grid
from recalign.sequences import Sequences

EncodeUnique = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
"""Vectors [T, e] of the distinct texts, and each text's row in them [n]."""


def fit_examples(
    reasonings: pl.DataFrame,
    users: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    encode: EncodeUnique,
    states_of: Callable[[np.ndarray, np.ndarray], Tensor],
    sequences: Sequences,
) -> tuple[FitExamples, int]:
    """The examples of `users` [U] with targets [U, T] (0 padded), and how many users lack a text.

    The text is written at starts [U]; target j stands at position starts + j, and the sequence
    model sees everything below it in `sequences`. `states_of` takes users [E] and positions [E] and
    gives states [E, d]. Malformed texts are not used; a user who has no other is left out.
    FailedRoundError when none is left.
    """
    vectors, grid, kept = _usable_texts(reasonings, users, encode)
    owners, steps = np.nonzero(targets[kept])
    at_users, positions = users[kept][owners], starts[kept][owners] + steps
    states = states_of(at_users, positions)
    seen = (sequences.offsets[at_users], np.minimum(positions, sequences.lengths[at_users]))
    columns = (vectors, grid, owners, targets[kept][owners, steps], *seen, sequences.items)
    texts, text_rows, owned, *rest = (torch.from_numpy(c).to(states.device) for c in columns)
    wanted, first, n_seen, taken = rest
    examples = FitExamples(
        users[kept], texts, text_rows, owned, states.detach(), wanted, first, n_seen, taken
    )
    return examples, len(users) - len(kept)


def list_examples(
    reasonings: pl.DataFrame,
    users: np.ndarray,
    lists: Lists,
    places: np.ndarray,
    encode: EncodeUnique,
    device: torch.device,
) -> tuple[ListExamples, dict[str, int]]:
    """The lists of `users` [U] as examples on `device`, and how many users and lists are left out.

    places [N, L]: each item's place in its list. Malformed texts are not used; left out are users
    without another, lists without a positive item and users without a list. FailedRoundError when
    none is left.
    """
    vectors, grid, kept = _usable_texts(reasonings, users, encode)
    useful = lists.positive.any(1) & np.isin(lists.owners, kept)
    owners = np.unique(lists.owners[useful])
    if not len(owners):
        raise FailedRoundError(
            "recommender: no list of the users to fit on has an item that belongs first: lower "
            "splits.positive_above"
        )
    number = np.full(len(users), -1)
    number[owners] = np.arange(len(owners))
    columns = (
        vectors, grid[np.searchsorted(kept, owners)], number[lists.owners[useful]],
        lists.items[useful], lists.positive[useful], places[useful],
    )  # fmt: skip
    examples = ListExamples(users[owners], *(torch.from_numpy(c).to(device) for c in columns))
    left_out = {
        "user without a usable reasoning": len(users) - len(kept),
        "user without a list to learn from": len(kept) - len(owners),
        "list without a positive item": int((~lists.positive.any(1)).sum()),
    }
    return examples, {reason: n for reason, n in left_out.items() if n}


def _usable_texts(
    reasonings: pl.DataFrame, users: np.ndarray, encode: EncodeUnique
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [T, e], rows [K, R] of them, and the places [K] of the users who have any."""
    usable = reasonings.filter(pl.col("malformed").is_null())
    if usable.is_empty():
        counts = reasonings["malformed"].value_counts().sort("malformed").iter_rows()
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts)
        raise FailedRoundError(
            f"recommender: all {len(reasonings)} reasonings of the fit window are malformed"
            f" ({reasons}): check the LLM, the attributes of your items, reasonings.template,"
            " reasonings.max_new_tokens and, for short ones, reasonings.min_words"
        )
    vectors, rows = encode(usable["reasoning"].to_list())
    grid, _ = text_grid(usable["user_index"].to_numpy(), usable["sample"].to_numpy(), rows, users)
    kept = np.flatnonzero(grid[:, 0] >= 0)
    return vectors, grid[kept], kept
