"""Rewards over re-ranked lists, by hand: a sample has the mean over its user's lists."""

import numpy as np
import pytest

from recalign import ranking
from recalign.config import RewardsConfig
from recalign.lists import Lists
from recalign.rewards.list_rewards import score_lists
from recalign.rewards.score import SampledTexts

LISTS = Lists(
    owners=np.array([0, 0, 1, 2]),
    items=np.array([[1, 2, 3]] * 4),
    positive=np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=bool),
)
TEXTS = SampledTexts(
    places=np.arange(3),
    vectors=np.array([[3.0, 2, 1], [1, 2, 3]], dtype=np.float32),
    rows=np.array([[0, 1], [1, -1], [0, 1]]),
    samples=np.array([[0, 1], [0, 0], [0, 1]], dtype=np.int16),
)


def read(rows, texts):
    """A text's vector is the scores of the items."""
    return texts


def rewards(config):
    return score_lists(read, np.array([5, 6, 9]), LISTS, TEXTS, config)


def test_ndcg_is_the_mean_over_lists_and_0_without_a_positive_item():
    table = rewards(RewardsConfig(reward="ndcg_at_k", k=2))
    assert table.select("user_index", "sample").rows() == [(5, 0), (5, 1), (6, 0), (9, 0), (9, 1)]
    assert table["reward"].to_list() == pytest.approx([0.5, 0.0, 1.0, 0.0, 0.0])
    assert table["ndcg_full"].to_list() == pytest.approx([0.5, 0.25, 1.0, 0.0, 0.0])


def test_log_probability_is_that_of_the_positive_items_in_their_list():
    table = rewards(RewardsConfig(reward="log_prob"))
    log = np.log(np.exp([1.0, 2, 3]).sum())
    expected = [(3 - log) / 2, (1 - log) / 2, 2.5 - log, 0.0, 0.0]
    assert table["reward"].to_list() == pytest.approx(expected)


def test_chunks_of_lists_change_nothing(monkeypatch):
    whole = rewards(RewardsConfig())
    monkeypatch.setattr(ranking, "CHUNK_ELEMENTS", 1)
    assert rewards(RewardsConfig()).equals(whole)
