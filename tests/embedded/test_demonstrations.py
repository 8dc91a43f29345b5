"""Demonstrations: prefixes inside the history window, prompt and text from the same items."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from recalign.config import BootstrapConfig
from recalign.embedded.demonstrations import (
    build_demonstrations,
    choose_histories,
    choose_prefixes,
)
from recalign.embedded.reasoners import REASONERS, facets_of, reasonings_by_rule
from recalign.errors import UserError
from recalign.sequences import Sequences


def test_prefixes_lie_inside_the_history_window_and_all_come_before_any_comes_twice() -> None:
    stops = np.array([5, 2, 0, 3])  # with at least 3 items: cutoffs 3, 4, 5 of user 0; 3 of user 3
    users, cutoffs = choose_prefixes(stops, 8, min_items=3, seed=0)
    pairs = list(zip(users.tolist(), cutoffs.tolist(), strict=True))
    possible = {(0, 3), (0, 4), (0, 5), (3, 3)}
    assert set(pairs[:4]) == possible
    assert set(pairs[4:]) == possible


def test_prefixes_are_drawn_evenly_and_by_seed() -> None:
    stops = np.full(50, 100)
    users, cutoffs = choose_prefixes(stops, 2000, min_items=1, seed=1)
    assert abs(cutoffs.mean() - 50.5) < 4 * 29 / np.sqrt(2000)
    assert np.bincount(users, minlength=50).min() > 40 - 4 * np.sqrt(40)
    again = choose_prefixes(stops, 2000, min_items=1, seed=1)
    assert (again[0] == users).all()
    assert (again[1] == cutoffs).all()
    assert (choose_prefixes(stops, 2000, min_items=1, seed=2)[0] != users).any()


def test_no_history_long_enough_is_a_user_error() -> None:
    with pytest.raises(UserError, match="no user has the 4 items"):
        choose_prefixes(np.array([3, 0]), 10, min_items=4, seed=0)


def test_a_prompt_and_its_five_texts_see_the_same_history() -> None:
    genres = ["War", "Comedy", "Drama", "Noir", "Epic"]
    items = pl.DataFrame(
        {
            "item_index": pl.Series(range(1, 7), dtype=pl.Int32),
            "attributes": [*([{"name": "genre", "value": genre}] for genre in genres), []],
        }
    )
    shown: list[list[int]] = []

    def render(indices: Sequence[int]) -> str:
        shown.append(list(indices))
        return " ".join(map(str, indices))

    histories = [np.array(history) for history in ([2, 3, 4], [6, 6], [1, 2])]
    found = build_demonstrations(items, histories, render, seed=5)
    assert shown == [[2, 3, 4], [6, 6], [1, 2]]
    assert found.prompts == ["2 3 4"] * 5 + ["1 2"] * 5  # item 6 has no attribute to tell of
    assert found.n_silent == 1
    for window, texts in ([2, 3, 4], found.reasonings[:5]), ([1, 2], found.reasonings[5:]):
        for name, text in zip(REASONERS, texts, strict=True):
            if name in ("lift", "counts", "last"):
                assert text == reasonings_by_rule(name, facets_of(items), [np.array(window)], 5)[0]


def test_a_chosen_history_is_the_last_items_before_its_cutoff() -> None:
    sequences = Sequences(np.array([0, 5, 8]), np.arange(1, 9), 8)
    config = BootstrapConfig(n_prompts=200, history_items=2)
    histories = {tuple(history.tolist()) for history in choose_histories(sequences, config, 2)}
    assert histories == {(1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8)}
