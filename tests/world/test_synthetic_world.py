"""The synthetic world: what it holds, that its seed decides it, and how hard it is."""

import time

import numpy as np
import polars as pl
import pytest

from recalign.config import SyntheticWorld
from recalign.errors import UserError
from recalign.schemas import ATTRIBUTES
from recalign.world import synthesise as synthesise_module
from recalign.world.as_source import with_indices
from recalign.world.synthesise import World, synthesise
from recalign.world.utility import TrueWorld, preference_probability, utilities
from recalign.world.vocabulary import surnames, titles


def indexed(world: World) -> tuple[TrueWorld, pl.DataFrame]:
    """The truth, items and appeal with indices, and interactions with indices."""
    items = world.items.with_row_index("item_index", offset=1)
    users = world.interactions.select(pl.col("user_id").unique().sort()).with_row_index(
        "user_index"
    )
    truth = world.truth.join(users, on="user_id", maintain_order="left")
    events = (
        world.interactions.join(users, on="user_id", maintain_order="left")
        .join(items.select("item_id", "item_index"), on="item_id", maintain_order="left")
        .with_columns(
            position=pl.int_range(pl.len()).over("user_index"), n=pl.len().over("user_index")
        )
    )
    appeal = items.join(world.appeal, on="item_id").select("item_index", "appeal")
    return TrueWorld(truth, items, appeal, noise=1.0), events


def test_the_seed_alone_decides_the_world() -> None:
    config = SyntheticWorld(n_users=40, n_items=80, seed=3)
    first, again = synthesise(config), synthesise(config)
    other = synthesise(config.model_copy(update={"seed": 4}))
    for name in ("interactions", "items", "truth", "appeal"):
        assert getattr(first, name).equals(getattr(again, name))
        assert not getattr(first, name).equals(getattr(other, name))


def test_how_many_users_are_computed_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = SyntheticWorld(n_users=40, n_items=80)
    whole = synthesise(config)
    monkeypatch.setattr(synthesise_module, "CHUNK", 7 * 80)
    assert synthesise(config).interactions.equals(whole.interactions)


def test_users_take_each_item_at_most_once_in_order_of_time_and_within_the_lengths() -> None:
    events = synthesise(SyntheticWorld(n_users=60, n_items=60)).interactions
    assert events.schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "rating": pl.Float32,
        "row": pl.Int64,
    }
    assert events.select("user_id", "item_id").is_duplicated().sum() == 0
    lengths = events.group_by("user_id").len()["len"]
    assert len(lengths) == 60
    assert (lengths.min(), lengths.max()) == (42, 50)
    gaps = events.select(pl.col("timestamp").diff().over("user_id"))["timestamp"].drop_nulls()
    assert min(gaps.to_list()) >= 60
    assert events["row"].to_list() == list(range(len(events)))


def test_items_have_one_or_two_genres_and_one_of_each_other_facet_all_single_words() -> None:
    config = SyntheticWorld(n_users=10, n_items=300)
    items = synthesise(config).items
    assert items.schema["attributes"] == ATTRIBUTES
    assert items["title"].n_unique() == 300
    values = items.explode("attributes").unnest("attributes")
    counts = values.group_by("item_id", "name").len()
    assert set(counts.filter(pl.col("name") == "genre")["len"]) == {1, 2}
    for facet, most in (("creator", 100), ("era", 6), ("mood", 8)):
        assert counts.filter(pl.col("name") == facet)["len"].to_list() == [1] * 300
        assert 2 <= values.filter(pl.col("name") == facet)["value"].n_unique() <= most
    assert values.select("item_id", "name", "value").is_duplicated().sum() == 0
    assert values.filter(~pl.col("value").str.contains(r"^[A-Za-z0-9-]+$")).is_empty()


def test_names_stay_different_in_the_largest_worlds() -> None:
    assert len(set(surnames(2000, 1))) == 2000
    assert len(set(titles(90_000, 1))) == 90_000
    assert titles(90_000, 1)[:50] == titles(50, 1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_given_share_of_users_drifts_once_to_other_tastes(share: float) -> None:
    config = SyntheticWorld(n_users=400, n_items=60, drift_share=share)
    truth = synthesise(config).truth
    starts = truth.group_by("user_id").agg(pl.col("from_position").unique().sort())
    n_drifted = starts.filter(pl.col("from_position").list.len() == 2).height
    assert abs(n_drifted - 400 * share) <= 4 * np.sqrt(400 * share * (1 - share))
    assert starts["from_position"].list.first().unique().to_list() == [0]
    if n_drifted:
        drifts = starts["from_position"].list.last().to_numpy()
        drifts = drifts[drifts > 0]
        assert drifts.min() >= 42 // 4
        assert drifts.max() < 50 * 3 / 4
    likes = truth.group_by("user_id", "from_position").agg(
        *((pl.col("name") == facet).sum().alias(facet) for facet in ("genre", "creator", "era"))
    )
    assert likes.select("genre", "creator", "era").unique().rows() == [(2, 3, 1)]


def test_utilities_add_appeal_and_the_weights_of_the_tastes_held_at_that_position() -> None:
    items = pl.DataFrame(
        {
            "item_index": [1, 2, 3],
            "attributes": [
                [{"name": "genre", "value": "War"}, {"name": "genre", "value": "Crime"}],
                [{"name": "genre", "value": "War"}, {"name": "mood", "value": "dark"}],
                [],
            ],
        }
    )
    truth = pl.DataFrame(
        {
            "user_index": [0, 0, 0, 1],
            "from_position": [0, 0, 7, 0],
            "name": ["genre", "genre", "mood", "mood"],
            "value": ["War", "Crime", "dark", "light"],
            "weight": [2.0, 0.5, 4.0, 9.0],
        }
    )
    appeal = pl.DataFrame({"item_index": [1, 2, 3], "appeal": [0.1, 0.2, 0.3]})
    found = utilities(
        TrueWorld(truth, items, appeal, 1.0),
        np.array([0, 0, 1]),
        np.array([6, 7, 3]),
        np.array([[1, 2, 3, 0]] * 3),
    )
    expected = [[2.6, 2.2, 0.3, 0], [0.1, 4.2, 0.3, 0], [0.1, 0.2, 0.3, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_drifts_move_with_the_interactions_that_ingest_keeps() -> None:
    truth = pl.DataFrame(
        {
            "user_id": ["a", "a", "b", "b"],
            "from_position": pl.Series([0, 3, 0, 1], dtype=pl.Int32),
            "name": ["mood"] * 4,
            "value": ["dark", "light", "wry", "tense"],
            "weight": pl.Series([1, 1, 1, 1], dtype=pl.Float32),
        }
    )
    interactions = pl.DataFrame(
        {
            "user_id": ["a"] * 4 + ["b"] * 3,
            "item_id": ["i1", "rare", "i2", "i3", "rare", "i1", "i2"],
            "row": range(7),
        }
    )
    items = pl.DataFrame({"item_index": [1, 2, 3], "item_id": ["i1", "i2", "i3"]})
    users = pl.DataFrame({"user_index": [0, 1], "user_id": ["a", "b"]})
    appeal = pl.DataFrame({"item_id": ["i3", "rare", "i1", "i2"], "appeal": [3.0, 9.0, 1.0, 2.0]})
    moved, by_index = with_indices(truth, appeal, users, items, interactions)
    rows = moved.select("user_index", "from_position", "value").rows()
    # of a's first three items two are left; all that b took before the drift is gone
    assert rows == [(0, 0, "dark"), (0, 2, "light"), (1, 0, "tense")]
    assert by_index.rows() == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_drifts_stay_where_they_are_when_everything_is_kept() -> None:
    world = synthesise(SyntheticWorld(n_users=40, n_items=80))
    items = world.items.select("item_id").with_row_index("item_index", offset=1)
    users = world.truth.select(pl.col("user_id").unique().sort()).with_row_index("user_index")
    still = users.join(world.truth, on="user_id")
    moved = with_indices(world.truth, world.appeal, users, items, world.interactions)[0]
    columns = ["user_index", "from_position", "name", "value"]
    assert moved.select(columns).sort(columns).equals(still.select(columns).sort(columns))


def test_preference_probability_is_logistic_in_the_difference_over_the_noise() -> None:
    a, b = np.array([1.0, 0.0, 1e6, -1e6]), np.array([0.0, 0.0, 0.0, 0.0])
    found = preference_probability(a, b, 2.0)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-0.5)), 0.5, 1.0, 0.0], atol=1e-12)


def test_users_take_a_before_b_as_often_as_the_true_probability_says() -> None:
    """Users who take all items rank them fully, so P(a before b) is exact (Plackett-Luce)."""
    config = SyntheticWorld(
        n_users=400, n_items=50, min_length=50, max_length=50, noise=1.5, drift_share=0
    )
    world, events = indexed(synthesise(config))
    ranks = np.zeros((400, 51), dtype=int)
    ranks[events["user_index"].to_numpy(), events["item_index"].to_numpy()] = events[
        "position"
    ].to_numpy()
    users = np.arange(400)
    everything = np.broadcast_to(np.arange(51), (400, 51))
    utility = utilities(world, users, np.zeros(400, dtype=int), everything)
    expected = preference_probability(utility[:, 1:26], utility[:, 26:], 1.5).ravel()
    happened = (ranks[:, 1:26] < ranks[:, 26:]).ravel()
    for low in np.arange(0, 1, 0.1):
        inside = (expected >= low) & (expected < low + 0.1)
        error = abs(happened[inside].mean() - expected[inside].mean())
        assert error < 4 * 0.5 / np.sqrt(inside.sum())


def ndcg_and_auc(config: SyntheticWorld) -> tuple[float, float, float]:
    """NDCG@10 of the truth and of popularity for the last 5 items, and the truth's AUC."""
    world, events = indexed(synthesise(config))
    n = config.n_users
    is_target = pl.col("position") >= pl.col("n") - 5
    history, targets = events.filter(~is_target), events.filter(is_target)
    target_items = targets["item_index"].to_numpy().reshape(n, 5)
    popularity = np.bincount(history["item_index"].to_numpy(), minlength=config.n_items + 1)
    positions = targets.group_by("user_index").agg(pl.col("position").min()).sort("user_index")
    everything = np.broadcast_to(np.arange(config.n_items + 1), (n, config.n_items + 1))
    utility = utilities(world, np.arange(n), positions["position"].to_numpy(), everything)
    results = []
    for scores in (utility, np.broadcast_to(popularity, utility.shape).astype(float)):
        scores = scores.copy()
        scores[history["user_index"].to_numpy(), history["item_index"].to_numpy()] = -np.inf
        scores[:, 0] = -np.inf
        top = np.argsort(-scores, axis=1)[:, :10]
        hits = (top[:, :, None] == target_items[:, None, :]).any(2)
        gains = 1 / np.log2(2 + np.arange(10))
        results.append(float((hits * gains).sum(1).mean() / gains[:5].sum()))
    scores = np.where(np.isfinite(scores), utility, -np.inf)
    below = [np.mean(scores[u, 1:] < scores[u, target_items[u], None]) for u in range(n)]
    seen = 45 / config.n_items  # masked items always lie below
    return results[0], results[1], (float(np.mean(below)) - seen) / (1 - seen)


def test_who_knows_the_truth_ranks_far_above_popularity_and_popularity_above_chance() -> None:
    truth, popularity, auc = ndcg_and_auc(SyntheticWorld(n_users=500))
    assert truth > 3 * popularity
    assert truth < 0.5  # noise is left: nobody can be right always
    assert popularity > 2 * 5 / 955 * 10 / 5  # chance: 10 draws of 955 items, 5 of them targets
    assert 0.8 < auc < 0.97


def test_with_huge_noise_even_the_truth_hardly_ranks() -> None:
    truth, popularity, auc = ndcg_and_auc(SyntheticWorld(n_users=500, noise=10))
    assert truth < 0.03
    assert popularity < 0.03
    assert 0.5 < auc < 0.6


def test_longer_sequences_than_there_are_items_are_refused() -> None:
    with pytest.raises(UserError, match="max_length 60 exceeds n_items 50"):
        synthesise(SyntheticWorld(n_items=50, max_length=60))


def test_the_default_world_takes_less_than_three_cpu_seconds() -> None:
    start = time.process_time()
    world = synthesise(SyntheticWorld())
    assert time.process_time() - start < 3
    assert 1500 * 42 < len(world.interactions) < 1500 * 50
