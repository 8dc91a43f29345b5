"""User ids and counts in `run.recommend`: what is meant is taken, a mistake is one line."""

import numpy as np
import polars as pl
import pytest

from recalign.artifacts.identity import Identity
from recalign.artifacts.store import Store
from recalign.errors import UserError
from recalign.runs import FinishedRun, ids_of


@pytest.fixture
def run(tmp_path):
    """A run of which there is a report alone: mistakes are told before anything is read."""
    store = Store(tmp_path / "artifacts")
    report = store.commit(store.draft(Identity("report", 1, {}, {}, {}), {})).manifest
    return FinishedRun(str(store.root), store, report)


@pytest.mark.parametrize(
    "users",
    [
        ["7", "12"],
        [7, 12],
        (7, "12"),
        np.array([7, 12]),
        pl.Series([7, 12]),
        pl.Series(["7", "12"]),
        (n for n in (7, 12)),
    ],
)
def test_whole_numbers_are_the_ids_of_these_digits(users):
    assert ids_of(users) == ["7", "12"]
    assert ids_of([]) == []


@pytest.mark.parametrize(
    ("users", "k", "message"),
    [
        ("u0001", 10, r"users: 'u0001' is no list of user ids; one id needs a list, too"),
        (b"u0001", 10, r"users: b'u0001' is no list of user ids"),
        (5, 10, r"users: 5 is no list of user ids"),
        ([1.5], 10, r"users: a float is no user id; ids are texts or whole numbers"),
        ([True], 10, r"users: a bool is no user id"),
        (["u1", None], 10, r"users: a NoneType is no user id"),
        (pl.DataFrame({"user_id": ["u1"]}), 10, r"users: a Series is no user id"),
        (["u1"], 0, r"k: Input should be greater than or equal to 1"),
        ([1], 1001, r"k: Input should be less than or equal to 1000"),
        (["u1"], "many", r"k: Input should be a valid integer"),
    ],
)
def test_a_mistake_is_one_line(run, users, k, message):
    with pytest.raises(UserError, match=message) as told:
        run.recommend(users, k=k)
    assert "\n" not in str(told.value)
