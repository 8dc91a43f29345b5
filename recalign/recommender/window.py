"""The fit window as examples: every target, the state just before it, and its user's texts."""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.errors import UserError
from recalign.recommender.examples import FitExamples, text_grid

EncodeUnique = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
"""Vectors [T, e] of the distinct texts, and each text's row in them [n]."""


def fit_examples(
    reasonings: pl.DataFrame,
    users: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    encode: EncodeUnique,
    before: Callable[[np.ndarray, np.ndarray], tuple[Tensor, np.ndarray]],
) -> tuple[FitExamples, int]:
    """The examples of `users` [U] with targets [U, T] (0 padded), and how many users lack a text.

    The text is written at starts [U]; target j stands at position starts + j, and the sequence
    model sees everything below it. `before` takes users [E] and positions [E] and gives states
    [E, d] and seen items [E, L]. Malformed texts are not used; a user who has no other is left
    out. UserError when none is left.
    """
    usable = reasonings.filter(pl.col("malformed").is_null())
    if usable.is_empty():
        reasons = dict(reasonings["malformed"].value_counts().sort("malformed").iter_rows())
        raise UserError(
            f"recommender: all {len(reasonings)} reasonings of the fit window are malformed"
            f" ({reasons}): check the LLM, reasonings.template and reasonings.max_new_tokens"
        )
    vectors, rows = encode(usable["reasoning"].to_list())
    grid, _ = text_grid(usable["user_index"].to_numpy(), usable["sample"].to_numpy(), rows, users)
    kept = np.flatnonzero(grid[:, 0] >= 0)
    owners, steps = np.nonzero(targets[kept])
    at_users, positions = users[kept][owners], starts[kept][owners] + steps
    states, seen = before(at_users, positions)
    columns = (vectors, grid[kept], owners, targets[kept][owners, steps], seen)
    texts, text_rows, owned, wanted, taken = (
        torch.from_numpy(c).to(states.device) for c in columns
    )
    examples = FitExamples(users[kept], texts, text_rows, owned, states.detach(), wanted, taken)
    return examples, len(users) - len(kept)
