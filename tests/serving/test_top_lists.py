"""The best items of every user: exact, without what was seen, and whatever the chunks."""

import numpy as np
import polars as pl
import pytest
import torch

from recalign.config import RecommenderConfig
from recalign.recommender.examples import ItemVectors
from recalign.recommender.model import start_model
from recalign.schemas import ITEMS
from recalign.sequences import Before, Sequences
from recalign.serving import top_lists as lists
from recalign.serving.rows import asked_users, listed_rows, unlisted_rows
from recalign.serving.top_lists import TopLists, top_lists

N_USERS, N_ITEMS, WIDTH = 37, 60, 5


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(3)
    users = torch.randn(N_USERS, WIDTH, generator=generator)
    return users, torch.randn(N_ITEMS + 1, WIDTH, generator=generator)


@pytest.fixture
def seen():
    return np.random.default_rng(5).integers(0, N_ITEMS + 1, (N_USERS, 12))


def best_by_sorting(vectors, seen, k):
    """Every score is computed, sorted and looked at."""
    scores = (vectors[0].double() @ vectors[1].double().T).numpy()
    found = []
    for row, hidden in zip(scores, seen, strict=True):
        order = [item for item in np.argsort(-row) if item > 0 and item not in set(hidden)]
        found.append((order + [0] * k)[:k])
    return np.array(found)


@pytest.mark.parametrize("chunk", [1, 61, 61 * 7, 1 << 24])
def test_lists_are_what_sorting_every_score_gives_whatever_the_chunk(
    vectors, seen, chunk, monkeypatch
):
    monkeypatch.setattr(lists, "CHUNK_SCORES", chunk)
    made = top_lists(vectors[0], vectors[1], seen, 10)
    assert np.array_equal(made.items, best_by_sorting(vectors, seen, 10))
    own = np.take_along_axis((vectors[0] @ vectors[1].T).numpy(), made.items, 1)
    assert np.allclose(made.scores, own, atol=1e-5)


def test_who_has_seen_nearly_everything_gets_what_is_left(vectors):
    seen = np.tile(np.arange(1, N_ITEMS + 1), (N_USERS, 1))
    seen[:, [10, 20]] = 0  # items 11 and 21 are new to everyone
    made = top_lists(vectors[0], vectors[1], seen, 5)
    assert all(set(row[:2]) == {11, 21} for row in made.items.tolist())
    assert (made.items[:, 2:] == 0).all()


def test_histories_padded_a_chunk_at_a_time_leave_out_what_one_table_does(vectors, monkeypatch):
    lengths = np.random.default_rng(2).integers(1, 30, N_USERS)
    items = np.random.default_rng(3).integers(1, N_ITEMS + 1, lengths.sum())
    sequences = Sequences(np.cumsum([0, *lengths]), items, N_ITEMS)
    table, _ = sequences.until(np.arange(N_USERS), lengths, 30)
    whole = top_lists(vectors[0], vectors[1], table, 10)
    monkeypatch.setattr(lists, "CHUNK_SCORES", 3 * (N_ITEMS + 1))
    before = Before(sequences, np.arange(N_USERS), lengths)
    assert np.array_equal(top_lists(vectors[0], vectors[1], before, 10).items, whole.items)


def test_a_diverged_model_is_told(vectors, seen):
    vectors[0][3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        top_lists(vectors[0], vectors[1], seen, 3)


def test_products_of_user_and_item_vectors_are_the_recommenders_scores():
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(N_ITEMS + 1, 8, generator=generator).numpy()
    matrix = torch.randn(N_ITEMS + 1, WIDTH, generator=generator)
    items = ItemVectors(matrix, torch.randn(N_ITEMS + 1, generator=generator), text)
    texts = torch.randn(N_USERS, 8, generator=generator)
    model = start_model(RecommenderConfig(hidden=4), items, texts)
    states = torch.randn(N_USERS, WIDTH, generator=generator)
    read = torch.arange(N_USERS) % 3 > 0
    scores = model.user_vectors(states, texts, read) @ model.item_vectors().T
    wanted = torch.where(
        read[:, None], model.scores(states, texts[:, None])[:, 0], model.base_scores(states)
    )
    assert torch.allclose(scores[:, 1:], wanted[:, 1:], atol=1e-4)
    assert not torch.allclose(scores[1, 1:], model.base_scores(states)[1, 1:], atol=1e-3)


def items_named(n):
    rows = {"item_index": range(1, n + 1), "item_id": [f"i{j}" for j in range(1, n + 1)]}
    named = {"title": [f"Title {j}" for j in range(1, n + 1)], "text": [""] * n}
    return pl.DataFrame(rows | named | {"attributes": [[]] * n}, schema=ITEMS)


def test_rows_carry_the_reasoning_once_and_say_why_a_user_has_none():
    made = TopLists(np.array([[3, 1], [2, 0], [0, 0]]), np.array([[2.0, 1], [5, 0], [0, 0]], "f4"))
    table = listed_rows(
        pl.Series(["a", "b", "c"]), made, pl.Series(["Likes A.", None, "Likes C."]), items_named(3)
    )
    assert table.drop("title").rows() == [
        ("a", 1, "i3", 2.0, "Likes A.", None),
        ("a", 2, "i1", 1.0, None, None),
        ("b", 1, "i2", 5.0, None, None),
        ("c", None, None, None, None, "every item is seen"),
    ]
    assert table["title"].to_list() == ["Title 3", "Title 1", "Title 2", None]


def test_who_is_asked_for_keeps_the_order_and_gets_a_reason_where_nothing_is_known():
    users = pl.DataFrame({"user_index": [0, 1], "user_id": ["a", "b"]},
                         schema={"user_index": pl.Int32, "user_id": pl.String})  # fmt: skip
    asked = asked_users(pl.Series(["z", "b", "x"]), users, pl.Series(["x", "y"]))
    assert asked.rows() == [
        ("z", None, "no history"), ("b", 1, None), ("x", None, "only unknown items"),
    ]  # fmt: skip
    everyone = asked_users(None, users, pl.Series(["x", "y"]))
    assert everyone["user_id"].to_list() == ["a", "b", "x", "y"]
    rows = unlisted_rows(everyone["user_id"][2:], everyone["why_none"][2:])
    assert rows["why_none"].to_list() == ["only unknown items"] * 2
    assert rows["rank"].null_count() == 2
