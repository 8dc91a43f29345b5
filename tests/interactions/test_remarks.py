"""What makes data less than they seem is told in sentences, with examples and shares."""

import polars as pl
import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.ingest import ingest
from recalign.interactions.rawtables import RAW_INTERACTIONS, RAW_ITEMS, RawTables

PLAIN = [(f"u{u}", f"i{item}", 100 * u + item, None) for u in range(12) for item in range(4)]


def remarks(rows, items=None, **settings):
    table = pl.DataFrame(rows, schema=RAW_INTERACTIONS, orient="row")
    ids = pl.Series(items or [], dtype=pl.String)
    raw_items = pl.DataFrame({"item_id": ids, "title": None, "attributes": None}, schema=RAW_ITEMS)
    raw = RawTables(table, raw_items, unknown_items="drop" if items else "keep")
    return ingest(raw, InteractionsConfig(**settings)).remarks


def test_plain_data_call_for_no_remark():
    assert remarks(PLAIN, [f"i{item}" for item in range(4)]) == []


def test_half_the_interactions_without_an_item_are_told_as_a_share_with_ids_of_both_sides():
    (told,) = remarks(PLAIN, ["i0", "i1"])
    assert told == (
        "50% of the interactions read are left out: unknown item (the interactions have 'i2' and "
        "'i3', the items 'i0' and 'i1')"
    )


def test_one_user_with_most_rows_is_told():
    (told,) = remarks(PLAIN + [("robot", f"x{n}", 10**6 + n, None) for n in range(48)])
    assert told == "one user has 50% of all interactions, as a program would"


def test_users_whose_interactions_often_tie_in_time_are_counted():
    once = [("tied", f"x{n}", 10**6 + min(n, 98), None) for n in range(100)]  # 1 of 100 ties
    assert remarks(once + PLAIN[:0]) == []
    (told,) = remarks([*once, ("tied", "y", 10**6 + 98, None)])
    assert told.startswith("1 of 1 users have more than 1% of their interactions at the time of")


def test_ids_that_differ_only_in_case_are_told_with_an_example():
    rows = [(user.upper() if n % 2 else user, *rest) for n, (user, *rest) in enumerate(PLAIN)]
    (told,) = remarks(rows)
    assert told == "24 user ids differ from another only in case, as 'U0' and 'u0'"


@pytest.mark.parametrize(
    ("items", "settings", "message", "absent"),
    [
        (["12.0"], {}, "write the item ids of both files alike: the interactions have 'i0' and "
         "'i1', the items '12.0'$", "k_core"),
        (None, {"k_core": 50}, r"48 by k_core; lower interactions.k_core \(now 50\)$", "ids"),
        (None, {"min_rating": 4, "source": "files", "files": {"interactions": "own.csv"}},
         "no_rating; there are no ratings .*rating_column", "ids"),
    ],
)  # fmt: skip
def test_when_nothing_is_left_only_what_helps_is_advised(items, settings, message, absent):
    with pytest.raises(BadInputError, match=message) as refusal:
        remarks(PLAIN, items, **settings)
    assert absent not in str(refusal.value)


def test_a_public_source_without_ratings_is_not_told_of_a_setting_for_own_files():
    with pytest.raises(BadInputError, match=r"compare interactions.min_rating with: leave") as told:
        remarks(PLAIN, None, min_rating=4, source="ml-1m")
    assert "interactions.files" not in str(told.value)
