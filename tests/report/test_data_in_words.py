"""What the data lack stands where a reader cannot miss it."""

from dataclasses import replace

import pytest

from recalign.report.content import DataSet
from recalign.report.sections import FEW_USERS, data_section, with_data

DATA = DataSet("ratings.csv", 467, 80, 9_000, {"unknown item": 4_500})


@pytest.mark.parametrize(
    ("n", "start"),
    [
        (1, "Only 1 user to test on: no figure is exact. With 9,000"),
        (FEW_USERS - 1, "Only 99 users to test on: no figure is exact. With 9,000"),
        (FEW_USERS, "With 9,000"),
        (None, "With 9,000"),
    ],
)
def test_few_test_users_are_the_first_sentence(n, start):
    assert with_data(replace(DATA, n_test_users=n)).startswith(start)


def test_remarks_follow_what_was_left_out_each_as_a_sentence():
    remarks = ["one user has 50% of all interactions, as a program would", "24 user ids differ"]
    told = data_section(replace(DATA, remarks=remarks)).note
    assert told == (
        "Data set ratings.csv. Left out: 4,500 unknown item. "
        "One user has 50% of all interactions, as a program would. 24 user ids differ."
    )
