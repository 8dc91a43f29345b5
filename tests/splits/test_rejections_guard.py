"""Pairs that reject what was taken, or that an oracle judges which saw the answer, are refused."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recalign.errors import LeakageError
from recalign.schemas import INTERACTIONS, REJECTIONS
from recalign.splits.rejected import check_judged, check_rejections


def interactions() -> pl.DataFrame:
    """User u takes items 10u+1 .. 10u+8."""
    rows = [(u, 10 * u + p + 1, p, 100 * u + p, None) for u in range(3) for p in range(8)]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def rejections(row: int = 0, **changes: Any) -> pl.DataFrame:
    """A pair of each user at position 5, of which one is changed."""
    rows: list[dict[str, Any]] = [
        {
            "user_index": user, "position": 5, "first_position": 3, "prompt": "?", "seed": 1,
            "history": [10 * user + 4, 10 * user + 5], "chosen": 10 * user + 6,
            "chosen_score": None, "rejected": [40, 10 * user + 7], "strategies": ["random"] * 2,
            "scores": [0.0, 0.0], "candidates": [10 * user + 7, 41, 10 * user + 6, 40],
        }
        for user in range(3)
    ]  # fmt: skip
    rows[row] |= changes
    return pl.DataFrame(rows, schema=REJECTIONS).select(list(REJECTIONS))


def test_pairs_that_reject_only_what_was_not_taken_before_are_proved():
    assert check_rejections(rejections(), interactions()) == 3
    assert check_rejections(rejections(1, candidates=[]), interactions()) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": 17, "candidates": []}, "its chosen item 17 is not the one at position 5"),
        ({"position": 8}, "its chosen item 16 is not the one at position 8"),
        ({"rejected": [40, 12]}, "rejects item 12 .*; the user took it at position 1"),
        ({"rejected": [16, 40]}, "rejects item 16 .*; the user took it at position 5"),
        ({"candidates": [17, 16, 40, 11]}, "lists item 11; the user took it at position 0"),
        ({"candidates": [17, 40, 41]}, "do not fit"),
        ({"candidates": [16, 40, 41]}, "do not fit"),
        ({"candidates": [16, 40, 17, 40]}, "do not fit"),
        ({"rejected": [40, 40], "candidates": []}, "do not fit"),
        ({"rejected": [0, 40], "candidates": []}, "do not fit"),
    ],
)
def test_a_wrong_pair_is_refused_by_row_user_and_item(changes, message):
    with pytest.raises(LeakageError, match=f"rejections, row 1, user 1: .*{message}"):
        check_rejections(rejections(1, **changes), interactions())


def test_an_oracle_that_saw_the_chosen_item_may_not_judge_the_pair():
    users, positions = np.array([4, 7, 9]), np.array([5, 6, 5])
    assert check_judged(users, positions, np.array([5, 4, 0])) == 3
    with pytest.raises(LeakageError, match=r"row 1, user 7: .*position 6 .* fitted on .* below 7"):
        check_judged(users, positions, np.array([5, 7, 6]))
