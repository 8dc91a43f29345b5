"""Demonstrations: prefixes inside the history window, prompt and text from the same items."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from recalign.embedded.demonstrations import build_demonstrations, choose_prefixes
from recalign.embedded.reasoners import REASONERS, reasonings_by_rule
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


def test_prompt_and_texts_see_the_last_items_before_the_cutoff_and_nothing_else() -> None:
    genres = ["War", "Comedy", "Drama", "Noir", "Epic"]
    items = pl.DataFrame(
        {
            "item_index": pl.Series(range(1, 7), dtype=pl.Int32),
            "attributes": [*([{"name": "genre", "value": genre}] for genre in genres), []],
        }
    )
    sequences = Sequences(np.array([0, 5, 8]), np.array([1, 2, 3, 4, 5, 6, 6, 1]), 6)
    shown: list[list[int]] = []

    def render(indices: Sequence[int]) -> str:
        shown.append(list(indices))
        return " ".join(map(str, indices))

    users, cutoffs = np.array([0, 1, 0]), np.array([4, 2, 2])
    found = build_demonstrations(items, sequences, users, cutoffs, 3, render, seed=5)
    assert shown == [[2, 3, 4], [6, 6], [1, 2]]
    assert set(found.prompts) == {"2 3 4", "1 2"}  # item 6 has no attribute to tell of
    for user, cutoff, name, prompt, text in zip(
        found.users, found.cutoffs, found.reasoners, found.prompts, found.reasonings, strict=True
    ):
        window = sequences.slice(int(user), int(cutoff) - 3, int(cutoff))
        assert prompt == " ".join(map(str, window))
        if name in ("lift", "counts", "last"):
            assert text == reasonings_by_rule(name, items, [window], 5)[0]
    per_prompt = [
        [n for n, p in zip(found.reasoners, found.prompts, strict=True) if p == prompt]
        for prompt in ("2 3 4", "1 2")
    ]
    assert per_prompt == [list(REASONERS)] * 2
