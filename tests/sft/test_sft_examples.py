"""What is trained on: every target once, behind enough history; questions drawn from the past."""

from collections import Counter

import numpy as np
import pytest

from recalign.sequences import Sequences
from recalign.sft.examples import Examples, history_examples, next_item_examples
from recalign.sft.questions import (
    draw_candidates,
    drawn_positions,
    drawn_windows,
    positions_from,
    title_windows,
)
from tests.sft.sft_samples import N_ITEMS, asking

START = 3  # an item's token is its index + 3; the prompt starts with token 1


def walks(*lengths: int) -> Sequences:
    """User u takes items 1, 2, 3, ... in order, so that an item tells its position."""
    items = np.concatenate([np.arange(1, length + 1) for length in lengths])
    return Sequences(np.concatenate([[0], np.cumsum(lengths)]), items, max(lengths))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_item_is_a_target_once_behind_the_items_before_it(stride: int) -> None:
    sequences = walks(11, 3, 1)
    windows = title_windows(sequences.lengths, 3, stride)
    found = history_examples(sequences, windows, asking(3))
    targets: Counter[int] = Counter()
    for ids, first in zip(found.ids, found.first, strict=True):
        items = [token - START for token in ids[1:]]
        assert ids[0] == 1
        assert items == list(range(items[0], items[0] + len(items))), "in order, without a gap"
        assert len(items) <= 4
        trained = items[first - 1 :]
        if items[0] > 1:
            assert len(items) - len(trained) >= 4 - stride
        targets.update(trained)
    assert targets == Counter([*range(1, 12), 1, 2, 3, 1])
    assert found.n_trained == 15
    assert [len(ids) for ids in found.ids if ids[-1] == 11 + START] == [5], "the last has all"


def test_drawn_windows_differ_keep_their_order_and_reach_every_user() -> None:
    every = title_windows(np.full(50, 21), 4)
    assert drawn_windows(every, 0, seed=0) == drawn_windows(every, len(every), seed=0) == every
    drawn = [drawn_windows(every, 300, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == [window for window in every if window in set(drawn[0])]
    assert (len(set(drawn[0])), {window.user for window in drawn[0]}) == (300, set(range(50)))


def test_a_next_item_stands_behind_the_last_items_shown_and_is_alone_trained() -> None:
    found = next_item_examples(walks(9, 4), np.array([0, 1]), np.array([6, 2]), [(), ()], asking(3))
    assert found.ids == [[1, 4 + START, 5 + START, 6 + START, 7 + START],
                         [1, 1 + START, 2 + START, 3 + START]]  # fmt: skip
    assert found.first == [4, 3]


def test_what_is_too_long_is_counted_and_never_cut() -> None:
    kept = Examples([[1, 2], [1, 2, 3], [4]], [1, 1, 0]).no_longer_than(2)
    assert (kept.ids, kept.first, kept.left_out) == ([[1, 2], [4]], [1, 0], 1)


def test_windows_are_entered_one_position_after_another() -> None:
    rows, positions = positions_from(np.array([5, 7, 9]), np.array([7, 7, 12]), 4)
    assert rows.tolist() == [0, 2, 0, 2]
    assert positions.tolist() == [5, 9, 6, 10]
    assert len(positions_from(np.array([5, 7, 9]), np.array([7, 7, 12]), 99)[0]) == 2 + 0 + 3


@pytest.mark.parametrize(("n_long", "told"), [(1, False), (2, True)])
def test_many_examples_that_are_too_long_are_told(
    n_long: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [[1, 5]] * (10 - n_long) + [[1, 5, 6]] * n_long
    Examples(ids, [1] * 10).no_longer_than(2).tell_too_long("training", 2)
    words = f"sft.max_length: {n_long} of 10 training examples are left out, as they have more than"
    assert (words in caplog.text) == told
    assert ("raise it, or lower sft.history_items" in caplog.text) == told


def test_drawn_positions_differ_and_have_an_item_before_them() -> None:
    lengths = np.array([4, 1, 0, 3])
    users, positions = drawn_positions(lengths, 99, seed=0)
    assert list(zip(users.tolist(), positions.tolist(), strict=True)) == [
        (0, 1), (0, 2), (0, 3), (3, 1), (3, 2)
    ]  # fmt: skip
    drawn = [
        tuple(zip(*(a.tolist() for a in drawn_positions(np.full(50, 9), 20, seed)), strict=True))
        for seed in (0, 0, 1)
    ]
    assert len(set(drawn[0])) == 20
    assert drawn[0] == drawn[1] != drawn[2]


def test_candidates_hold_the_target_and_nothing_that_was_taken_before() -> None:
    sequences = Sequences(np.array([0, 6, 9]), np.array([1, 2, 3, 4, 5, 6, 7, 8, 9]), N_ITEMS)
    users, positions = np.array([0, 0, 1]), np.array([2, 4, 1])
    lists = draw_candidates(sequences, users, positions, 5, seed=0)
    assert [len(set(shown)) for shown in lists] == [5, 5, 5]
    for shown, target, taken in zip(lists, (3, 5, 8), ({1, 2}, {1, 2, 3, 4}, {7}), strict=True):
        assert target in shown
        assert not taken & set(shown)
    alone = draw_candidates(sequences, users[1:2], positions[1:2], 5, seed=0)
    assert alone[0] == lists[1], "each (user, position) has a stream of its own"
    everything = draw_candidates(sequences, users, positions, 99, seed=0)
    assert [sorted(shown) for shown in everything] == [
        [i for i in range(1, N_ITEMS + 1) if i not in taken]
        for taken in ({1, 2}, {1, 2, 3, 4}, {7})
    ]


def test_the_target_stands_anywhere_among_the_candidates() -> None:
    """Over 300 draws of 4 places each place is taken about 75 times (sd 7.5)."""
    sequences = Sequences(np.arange(301) * 2, np.tile([1, 2], 300), N_ITEMS)
    lists = draw_candidates(sequences, np.arange(300), np.ones(300, int), 4, seed=0)
    places = Counter(shown.index(2) for shown in lists)
    assert set(places) == {0, 1, 2, 3}
    assert max(abs(count - 75) for count in places.values()) < 4 * 7.5
