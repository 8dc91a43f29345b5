"""Training windows: every position once, nothing at or after the stop."""

import tracemalloc

import numpy as np

from recalign.oracle.batches import shuffled_batches, training_windows
from recalign.oracle.dropout import DropoutMasks
from recalign.sequences import Sequences


def numbered(lengths: list[int]) -> Sequences:
    """Sequences in which every item is its own place in the flat array, plus 1."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(offsets, np.arange(1, offsets[-1] + 1), int(offsets[-1]))


LENGTHS = [0, 1, 2, 9, 30, 5]
STOPS = np.array([0, 1, 2, 7, 30, 99])


def test_windows_cover_every_target_before_the_stop_once() -> None:
    sequences = numbered(LENGTHS).before(STOPS)
    windows = training_windows(sequences, max_length=4)
    targets = np.concatenate(
        [first + 1 + np.arange(n) for first, n in zip(windows.firsts, windows.lengths, strict=True)]
    )
    expected = np.concatenate(
        [
            sequences.offsets[u] + np.arange(1, min(STOPS[u], LENGTHS[u]))
            for u in range(len(LENGTHS))
        ]
    )
    assert sorted(targets) == sorted(expected)
    assert windows.lengths.max() == 4
    # User 3 has six targets: the latest window is full, the earliest has the remainder.
    assert windows.lengths[windows.firsts == sequences.offsets[3] + 2].tolist() == [4]
    assert windows.lengths[windows.firsts == sequences.offsets[3]].tolist() == [2]


def test_batches_pair_each_input_with_the_item_after_it() -> None:
    sequences = numbered(LENGTHS).before(STOPS)
    windows = training_windows(sequences, max_length=4)
    batches = list(shuffled_batches(sequences, windows, 3, np.random.default_rng(0)))
    assert len(batches) == -(-len(windows) // 3)
    seen = []
    for batch in batches:
        inputs = batch.histories.flatten()[batch.places]
        assert (batch.targets == inputs + 1).all()  # numbered sequences: the next item is one more
        assert (batch.histories.flatten() > 0).sum() == len(batch.places)
        assert (batch.histories[:, 0] > 0).all(), "not padded on the right"
        seen += batch.targets.tolist()
    assert len(seen) == len(set(seen)) == windows.lengths.sum()


def test_batches_hold_windows_of_like_length() -> None:
    sequences = numbered(list(np.random.default_rng(0).integers(2, 60, 400)))
    windows = training_windows(sequences, max_length=60)
    batches = list(shuffled_batches(sequences, windows, 8, np.random.default_rng(1)))
    slots = sum(batch.histories.numel() for batch in batches)
    assert windows.lengths.sum() / slots > 0.9  # in random order it is about 0.55


def test_the_order_is_decided_by_the_generator() -> None:
    sequences = numbered([5] * 40)
    windows = training_windows(sequences, max_length=4)

    def order(seed: int) -> list[int]:
        draws = np.random.default_rng(seed)
        return [
            x for b in shuffled_batches(sequences, windows, 4, draws) for x in b.targets.tolist()
        ]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_popularity_counts_only_what_is_before_the_stop() -> None:
    sequences = Sequences(np.array([0, 3, 5]), np.array([2, 2, 3, 3, 1]), 4)
    assert sequences.before(np.array([2, 9])).counts().tolist() == [0, 1, 2, 1, 0]


def test_dropout_masks_repeat_by_epoch_and_keep_the_mean() -> None:
    import torch

    like = torch.zeros(64, 40)
    first, again = (DropoutMasks(0.25, 0, 1, torch.device("cpu")) for _ in range(2))
    masks = [first.of(like) for _ in range(20)]
    assert all(torch.equal(mask, again.of(like)) for mask in masks)
    other = DropoutMasks(0.25, 0, 2, torch.device("cpu")).of(like)
    assert not torch.equal(other, masks[0])
    assert set(torch.stack(masks).unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(torch.stack(masks).mean().item() - 1) < 0.02


def test_an_epoch_of_batches_grows_by_a_place_per_window_not_by_the_windows() -> None:
    peaks = []
    for n_users in (2_000, 32_000):
        sequences = numbered([50] * n_users)
        windows = training_windows(sequences, max_length=50)
        tracemalloc.start()
        for batch in shuffled_batches(sequences, windows, 32, np.random.default_rng(0)):
            assert batch.histories.shape[1] == 49
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    per_window = (peaks[1] - peaks[0]) / 30_000
    assert per_window < 16, "padded, a window would take 392 bytes"
