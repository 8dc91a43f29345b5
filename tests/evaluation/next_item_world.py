"""Seven items and three users, small enough to work everything out by hand."""

import numpy as np
import polars as pl
import torch

from recalign.evaluation.next_items.cases import Cases, cases_of
from recalign.evaluation.next_items.outcomes import Response
from recalign.schemas import CANDIDATES, INTERACTIONS
from recalign.sequences import Sequences

TAKEN = [[1, 2, 3, 4], [2, 2, 5, 1], [6, 7, 6]]
NEGATIVES = {  # of users 0, 1 and 2
    "uniform": [[5, 6, 7], [3, 4, 6, 7], [1]],
    "popularity": [[7, 6, 5], [7, 6, 4, 3], [1]],
}


def interactions() -> pl.DataFrame:
    rows = [
        (user, item, position, 10 * position, None)
        for user, items in enumerate(TAKEN)
        for position, item in enumerate(items)
    ]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def sequences() -> Sequences:
    return Sequences.of(interactions(), n_items=7)


def candidates() -> pl.DataFrame:
    rows = [
        (user, kind, items) for kind, lists in NEGATIVES.items() for user, items in enumerate(lists)
    ]
    return pl.DataFrame(rows, schema=CANDIDATES, orient="row")


def all_cases(n_cases: int = 0) -> Cases:
    """Users 0 and 1 are judged on their last two items, user 2 on the last."""
    users, starts, ends = (np.array(a) for a in ([0, 1, 2], [2, 2, 2], [4, 4, 3]))
    return cases_of(sequences(), users, starts, ends, n_cases)


def by_table(scores: list[list[float]]):
    """A recommender that scores items 1..7 as this table says, one row per case."""
    table = torch.tensor(scores)
    padded = torch.nn.functional.pad(table, (1, 0), value=99.0)
    return lambda where: Response(scores=padded[where])
