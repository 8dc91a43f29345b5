"""Which next items are asked for, and with which candidates."""

from typing import NamedTuple

import numpy as np

from recalign.seeding import stream
from recalign.sequences import Sequences


class TitleWindow(NamedTuple):
    """Positions start..stop-1 of a user, of whose titles those from `trained` on are targets."""

    user: int
    start: int
    trained: int
    stop: int


def title_windows(
    lengths: np.ndarray, history_items: int, stride: int | None = None
) -> list[TitleWindow]:
    """Every position 0..lengths[u]-1 as a target once, behind up to `history_items` earlier ones.

    Windows of history_items + 1 titles end at a sequence's end, and `stride` items before it, and
    so on; each trains on its last `stride` titles (the first window of a sequence on all), so
    that a target has at least history_items + 1 - stride titles before it, where there are any.
    Half of history_items, the default, has a lower validation loss than windows that hardly
    overlap (6.24 against 6.26 nats on the synthetic world) for twice the tokens at most.
    """
    stride = stride or max(1, history_items // 2)
    windows = []
    for user, length in enumerate(lengths.tolist()):
        for stop in range(length, 0, -stride):
            start = max(0, stop - history_items - 1)
            windows.append(TitleWindow(user, start, stop - stride if start else 0, stop))
            if not start:
                break
    return windows


def drawn_windows(windows: list[TitleWindow], n: int, seed: int) -> list[TitleWindow]:
    """At most `n` of the windows, all drawn alike, in their order; 0: all."""
    if not 0 < n < len(windows):
        return windows
    drawn = stream(seed, "sft", "windows").choice(len(windows), n, replace=False)
    return [windows[i] for i in sorted(drawn.tolist())]


def positions_from(starts: np.ndarray, ends: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `n` positions of windows starts[u]..ends[u]-1, int64 [n] rows and [n] positions.

    First every window's first position, then every second one, and so on: all users count alike.
    """
    lengths = np.maximum(ends - starts, 0)
    rows = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = np.lexsort((rows, within))[:n]
    return rows[order], starts[rows[order]] + within[order]


def drawn_positions(lengths: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `n` different (user, position), each with an item before it, in order.

    lengths [n_users]: positions 1..lengths[u]-1 are drawn from, all alike.
    """
    sizes = np.maximum(lengths - 1, 0)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    drawn = stream(seed, "sft", "questions").choice(total, min(n, total), replace=False)
    drawn.sort()
    users = np.searchsorted(ends, drawn, side="right")
    return users, drawn - (ends - sizes)[users] + 1


def draw_candidates(
    sequences: Sequences, users: np.ndarray, positions: np.ndarray, n: int, seed: int
) -> list[list[int]]:
    """For each (user, position) its item among `n - 1` others, shuffled.

    The others are drawn evenly among the items that the user did not take up to the position;
    fewer where fewer are left. Every (user, position) has a random stream of its own.
    """
    lists = []
    untaken = np.ones(sequences.n_items + 1, dtype=bool)
    untaken[0] = False
    for user, position in zip(users.tolist(), positions.tolist(), strict=True):
        own = sequences.slice(user, 0, position + 1)
        untaken[own] = False
        others = np.flatnonzero(untaken)
        untaken[own] = True
        random = stream(seed, "sft", "candidates", user, position)
        drawn = random.choice(others, min(n - 1, len(others)), replace=False)
        lists.append(random.permutation(np.append(drawn, own[-1])).tolist())
    return lists
