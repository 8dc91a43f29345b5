"""The fit window as examples: which text, state, target and seen items belong together."""

import numpy as np
import polars as pl
import pytest
import torch

from recalign.errors import UserError
from recalign.recommender.window import fit_examples
from recalign.schemas import REASONINGS
from recalign.sequences import Sequences


def encode_unique(texts):
    """A vector that names its text: its length and its number of words."""
    distinct = list(dict.fromkeys(texts))
    vectors = np.array([[len(text), len(text.split())] for text in distinct], dtype=np.float32)
    return vectors, np.array([distinct.index(text) for text in texts], dtype=np.int64)


def reasonings(rows):
    return pl.DataFrame(rows, REASONINGS, orient="row")


def examples_of(rows):
    """Users 2, 5 and 7 with windows of 2, 1 and 2 targets from positions 3, 4 and 3 on."""
    return fit_examples(
        reasonings(rows),
        np.array([2, 5, 7]),
        np.array([3, 4, 3]),
        np.array([[11, 12], [13, 0], [14, 15]]),
        encode_unique,
        lambda users, stops: torch.tensor(np.stack([users, stops], 1)).float(),
        SEQUENCES,
    )


SEQUENCES = Sequences(
    np.arange(0, 9 * 5, 5), np.array([10 * user + n for user in range(8) for n in range(1, 6)]), 75
)  # five items of each user
ROWS = [
    (2, 0, "a b", 2, None),
    (2, -1, "greedy", 1, None),
    (5, 0, "cut off", 2, "unfinished"),
    (7, 1, "later one here", 3, None),
    (7, 0, "a b", 2, None),
    (7, 2, "!", 1, "too short"),
]


def test_every_target_meets_the_state_just_before_it():
    examples, _ = examples_of(ROWS)
    users = examples.users[examples.owners]
    assert users.tolist() == [2, 2, 7, 7]
    assert examples.targets.tolist() == [11, 12, 14, 15]
    assert examples.states.tolist() == [[2, 3], [2, 4], [7, 3], [7, 4]]
    seen = examples.seen(slice(0, 4))
    assert seen.tolist() == [[21, 22, 23, 0], [21, 22, 23, 24], [71, 72, 73, 0], [71, 72, 73, 74]]
    assert examples.seen(torch.tensor([2])).tolist() == [[71, 72, 73]]
    assert examples.of_users(np.array([1])).seen(slice(0, 1)).tolist() == [[71, 72, 73]]


def test_texts_belong_to_their_user_and_malformed_ones_to_nobody():
    examples, _ = examples_of(ROWS)
    texts = [
        [examples.texts[row].tolist() for row in rows if row >= 0] for rows in examples.text_rows
    ]
    assert texts == [[[6, 1], [3, 2]], [[3, 2], [14, 3]]]


def test_a_user_without_a_usable_text_is_counted_and_left_out():
    examples, lost = examples_of(ROWS)
    assert lost == 1
    assert examples.users.tolist() == [2, 7]


def test_when_every_text_is_malformed_the_reasons_are_told():
    with pytest.raises(UserError, match=r"all 2 reasonings .*\(1 too short, 1 unfinished\)"):
        examples_of([(2, 0, "cut off", 2, "unfinished"), (7, 0, "!", 1, "too short")])
