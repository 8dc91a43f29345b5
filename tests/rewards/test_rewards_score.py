"""Rewards of whole batches equal those of one sample at a time, and the hand-written numbers."""

import numpy as np
import polars as pl
import pytest
import torch

from recalign import ranking
from recalign.config import RewardsConfig
from recalign.progress import silent
from recalign.rewards.score import RewardWindow, SampledTexts, score_rewards

N_USERS, N_ITEMS, N_SAMPLES, WIDTH, STATE = 23, 60, 5, 12, 6


class Reader:
    """states.V + text.T: stands for a recommender, and counts what it is asked."""

    def __init__(self):
        draw = torch.Generator().manual_seed(0)
        self.items = torch.randn(N_ITEMS + 1, STATE, generator=draw)
        self.text_items = torch.randn(N_ITEMS + 1, WIDTH, generator=draw) * 0.3
        self.largest = 0

    def __call__(self, states, texts):
        scores = (states @ self.items.T)[:, None] + texts @ self.text_items.T
        self.largest = max(self.largest, scores.numel())
        return scores


@pytest.fixture
def inputs():
    rng = np.random.default_rng(1)
    items = np.stack([rng.permutation(N_ITEMS) + 1 for _ in range(N_USERS)])
    targets = items[:, :4].copy()
    targets[3, 2:] = 0  # users differ in the number of targets
    seen = items[:, 4:12].copy()
    seen[5, 3:] = 0
    rows = np.arange(N_USERS * N_SAMPLES).reshape(N_USERS, N_SAMPLES) % 97
    return {
        "states": torch.tensor(rng.normal(size=(N_USERS, STATE))).float(),
        "text_vectors": rng.normal(size=(97, WIDTH)).astype(np.float32),
        "text_rows": rows,
        "samples": np.tile(np.arange(N_SAMPLES), (N_USERS, 1)),
        "users": np.arange(N_USERS) * 2 + 1,
        "targets": targets,
        "seen": seen,
    }


def rewards_of(inputs, config=None, reader=None, n_items=N_ITEMS, progress=silent):
    window = RewardWindow(
        inputs["users"], inputs["states"], inputs["targets"], inputs["seen"], n_items
    )
    places = np.arange(len(window.users))
    texts = SampledTexts(
        places, *(inputs[name] for name in ("text_vectors", "text_rows", "samples"))
    )
    return score_rewards(reader or Reader(), window, texts, config or RewardsConfig(), progress)


def one_sample(scores, targets, seen, k):
    """The three rewards of one sample, written out item by item."""
    targets = [item for item in targets if item]
    ranked = [i for i in range(1, N_ITEMS + 1) if i in targets or i not in seen]
    log_total = np.log(np.sum(np.exp([scores[i] for i in ranked])))
    ranks = [sum(scores[i] >= scores[target] for i in ranked) for target in targets]
    ideal = [1 / np.log2(1 + place) for place in range(1, len(targets) + 1)]
    return {
        "ndcg_full": sum(1 / np.log2(1 + rank) for rank in ranks) / sum(ideal),
        "ndcg_at_k": sum(1 / np.log2(1 + rank) for rank in ranks if rank <= k) / sum(ideal[:k]),
        "log_prob": np.mean([scores[target] - log_total for target in targets]),
    }


def test_batches_equal_one_sample_at_a_time(inputs):
    table = rewards_of(inputs)
    reader = Reader()
    for row in table.iter_rows(named=True):
        user = (row["user_index"] - 1) // 2
        text = torch.from_numpy(inputs["text_vectors"][inputs["text_rows"][user, row["sample"]]])
        scores = reader(inputs["states"][[user]], text[None, None])[0, 0].double().numpy()
        expected = one_sample(scores, inputs["targets"][user], inputs["seen"][user], 10)
        assert row["ndcg_full"] == pytest.approx(expected["ndcg_full"], abs=1e-12)
        assert row["ndcg_at_k"] == pytest.approx(expected["ndcg_at_k"], abs=1e-12)
        assert row["log_prob"] == pytest.approx(expected["log_prob"], abs=1e-5)
    assert len(table) == N_USERS * N_SAMPLES


def test_one_user_by_hand():
    # Item 1 is seen, items 3 and 5 are targets; the rest ranks 2 (3.0), 3 (2.0), 5 (1.0), 4 (0.5).
    given = torch.tensor([[[9.0, 9.0, 3.0, 2.0, 0.5, 1.0]]])
    inputs = {
        "states": torch.zeros(1, 1), "text_vectors": np.zeros((1, 1), dtype=np.float32),
        "text_rows": np.array([[0]]), "samples": np.array([[7]]), "users": np.array([4]),
        "targets": np.array([[3, 5]]), "seen": np.array([[1, 0, 0]]),
    }  # fmt: skip
    table = rewards_of(inputs, RewardsConfig(k=2), lambda states, texts: given, n_items=5)
    ideal = 1 + 1 / np.log2(3)
    log_total = np.log(np.exp([3.0, 2.0, 0.5, 1.0]).sum())
    row = table.row(0, named=True)
    assert (row["user_index"], row["sample"]) == (4, 7)
    assert row["ndcg_full"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / ideal)
    assert row["ndcg_at_k"] == pytest.approx((1 / np.log2(3)) / ideal)
    assert row["log_prob"] == pytest.approx(1.5 - log_total, abs=1e-6)


@pytest.mark.parametrize("name", ["ndcg_full", "ndcg_at_k", "log_prob"])
def test_the_configured_reward_is_the_reward(inputs, name):
    table = rewards_of(inputs, RewardsConfig(reward=name, k=5))
    assert table["reward"].equals(table[name])
    assert table["reward"].n_unique() > 1


@pytest.mark.parametrize(("name", "expected"), [("map_at_k", 0.25), ("hr_at_k", 1.0)])
def test_average_precision_and_hit_rate_of_one_user_by_hand(name, expected):
    # Targets rank 2 and 3. Within 2: one hit, of precision 1/2, of at most 2 targets.
    given = torch.tensor([[[9.0, 9.0, 3.0, 2.0, 0.5, 1.0]]])
    window = RewardWindow(
        np.array([4]), torch.zeros(1, 1), np.array([[3, 5]]), np.array([[1, 0, 0]]), 5
    )
    slots = np.array([[0]])
    texts = SampledTexts(np.array([0]), np.zeros((1, 1), dtype=np.float32), slots, slots)
    config = RewardsConfig(reward=name, k=2)
    table = score_rewards(lambda states, texts: given, window, texts, config)
    assert table["reward"].to_list() == [pytest.approx(expected)]


def test_chunks_of_users_change_nothing_and_bound_memory(inputs, monkeypatch):
    whole = rewards_of(inputs)
    reader = Reader()
    monkeypatch.setattr(ranking, "CHUNK_ELEMENTS", 2 * N_SAMPLES * (N_ITEMS + 1))
    chunked = rewards_of(inputs, reader=reader)
    assert reader.largest == 2 * N_SAMPLES * (N_ITEMS + 1)
    assert chunked.select("ndcg_full", "ndcg_at_k").equals(whole.select("ndcg_full", "ndcg_at_k"))
    np.testing.assert_allclose(chunked["log_prob"], whole["log_prob"], atol=1e-6)


def test_the_order_of_users_changes_nothing(inputs):
    order = np.random.default_rng(3).permutation(N_USERS)
    turned = {
        name: values if name == "text_vectors" else values[order]
        for name, values in inputs.items()
    }  # fmt: skip
    both = [rewards_of(given).sort("user_index", "sample") for given in (inputs, turned)]
    assert both[0].drop("log_prob").equals(both[1].drop("log_prob"))
    np.testing.assert_allclose(both[0]["log_prob"], both[1]["log_prob"], atol=1e-6)


def test_users_may_have_fewer_samples(inputs):
    rows = inputs["text_rows"].copy()
    rows[4, 3:] = -1
    table = rewards_of(inputs | {"text_rows": rows})
    whole = rewards_of(inputs)
    lost = (pl.col("user_index") == inputs["users"][4]) & (pl.col("sample") >= 3)
    assert table.equals(whole.filter(~lost))


def test_equal_scores_count_against_the_targets(inputs):
    table = rewards_of(
        inputs, reader=lambda states, texts: torch.zeros(*texts.shape[:2], N_ITEMS + 1)
    )
    ranked = N_ITEMS - 8  # eight seen items leave; all others tie, and targets follow each other
    ranks = ranked - np.arange(4)
    expected = (1 / np.log2(1 + ranks)).sum() / (1 / np.log2(np.arange(2.0, 6.0))).sum()
    first = table.filter(user_index=1)
    np.testing.assert_allclose(first["ndcg_full"], expected, atol=1e-12)
    np.testing.assert_allclose(first["log_prob"], -np.log(ranked), atol=1e-5)


def test_a_user_without_targets_is_refused(inputs):
    inputs["targets"][2] = 0
    with pytest.raises(ValueError, match="target"):
        rewards_of(inputs)


def test_progress_ends_with_all_users(inputs, monkeypatch):
    monkeypatch.setattr(ranking, "CHUNK_ELEMENTS", 1)
    calls = []

    def count(done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    rewards_of(inputs, progress=count)
    assert calls == [(done, N_USERS) for done in range(1, N_USERS + 1)]
