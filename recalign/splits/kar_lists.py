"""KAR's lists (arXiv 2306.10933): what a user took next, in blocks, among items that are drawn."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import numpy as np
import polars as pl

from recalign.config import SplitsConfig
from recalign.errors import BadInputError, LeakageError
from recalign.schemas import INTERACTIONS, LISTS, WINDOWS, check_table
from recalign.seeding import Streams
from recalign.sequences import Sequences
from recalign.splits.timelines import Timelines
from recalign.splits.weighted_draws import first_new

ROWS = 1 << 18
"""Lists drawn, or proved, at once."""


def draw_lists(
    interactions: pl.DataFrame, n_items: int, windows: pl.DataFrame, config: SplitsConfig
) -> tuple[pl.DataFrame, int]:
    """LISTS of every prompted user's window, and how many interactions stand in none.

    From the start of the window on, every `config.block` items in a row make a list; what is left
    over at the end makes none. The list is filled up with `config.drawn` items that are drawn
    uniformly from the whole catalogue, those the user has taken elsewhere among them, as in KAR's
    code, but not those of the block. Each user has a random stream of their own. The items of a
    list are in order of their index, which tells nothing.

    interactions: INTERACTIONS; windows: WINDOWS of the protocol kar. BadInputError: the catalogue
    has fewer than four times as many items as a list.
    """
    length = config.block + config.drawn
    if n_items < 4 * length:
        raise BadInputError(
            f"lists of {length} items cannot be drawn from a catalogue of {n_items}, at least "
            f"{4 * length} are needed: lower splits.drawn, or use splits.protocol = per_user"
        )
    sequences = Sequences.of(interactions, n_items)
    kept = windows.filter("prompted").sort("user_index")
    users, starts, ends = (
        kept[name].to_numpy().astype(np.int64) for name in ("user_index", "fit_start", "end")
    )
    counts = (ends - starts) // config.block
    streams = Streams(config.seed, "lists", last=users)
    ratings = interactions["rating"].fill_null(np.inf).to_numpy()
    tables = []
    for part in _runs(counts):
        own = Owned(users[part], starts[part], counts[part], streams[part])
        tables.append(_lists_of(own, sequences, ratings, config))
    left_over = int((ends - starts - counts * config.block).sum())
    return check_table(pl.concat(tables), LISTS, "lists").rechunk(), left_over


def _runs(counts: np.ndarray) -> list[slice]:
    """All users in their order, in runs of about ROWS of their `counts` [U] lists."""
    stops = np.cumsum(counts)
    inner = np.searchsorted(stops, np.arange(ROWS, int(counts.sum()), ROWS)) + 1
    edges = np.unique([0, *inner.tolist(), len(counts)]).tolist()
    return [slice(*edge) for edge in pairwise(edges)] or [slice(0)]


@dataclass(frozen=True)
class Owned:
    """Some users [U], where their windows start [U], and their lists: how many [U], how drawn."""

    users: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    generators: list[np.random.Generator]


def _lists_of(
    own: Owned, sequences: Sequences, ratings: np.ndarray, config: SplitsConfig
) -> pl.DataFrame:
    """LISTS of some users; ratings: of all interactions, in the order of `sequences.items`."""
    length = config.block + config.drawn
    owners = np.repeat(own.users, own.counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(own.counts) - own.counts, own.counts)
    positions = np.repeat(own.starts, own.counts) + within * config.block
    blocks = sequences.window(owners, positions, np.full_like(positions, config.block))
    drawn = _drawn(own, blocks, length, sequences.n_items)
    items = np.sort(np.concatenate([_once(blocks), drawn], 1), axis=1)[:, -length:]
    rows = (sequences.offsets[owners] + positions)[:, None] + np.arange(config.block)
    liked = ratings[rows] > config.positive_above
    positive = (items[:, :, None] == np.where(liked, blocks, -1)[:, None, :]).any(2)
    return pl.DataFrame(
        {
            "user_index": owners.astype(np.int32),
            "position": positions.astype(np.int32),
            "items": pl.Series(items.astype(np.int32)).arr.to_list(),
            "positive": pl.Series(positive).arr.to_list(),
        }
    )


def _once(blocks: np.ndarray) -> np.ndarray:
    """`blocks` [N, B] with 0 at the second and later places of an item in its row."""
    repeated = (blocks[:, :, None] == blocks[:, None, :]) & np.tri(
        blocks.shape[1], k=-1, dtype=bool
    )
    return np.where(repeated.any(2), 0, blocks)


def _drawn(own: Owned, blocks: np.ndarray, length: int, n_items: int) -> np.ndarray:
    """What makes each of `blocks` [N, B] a list of `length` items: int64 [N, length], 0 padded."""
    tries = np.empty((len(blocks), 4 * length), dtype=np.int64)
    stops = np.cumsum(own.counts)
    for draws, start, stop in zip(own.generators, stops - own.counts, stops, strict=True):
        tries[start:stop] = draws.integers(1, n_items + 1, (stop - start, tries.shape[1]))
    drawn = first_new(tries, blocks, length, n_items)
    wanted = length - (_once(blocks) > 0).sum(1)
    inside = np.arange(length) < wanted[:, None]
    if (drawn[inside] == 0).any():  # less likely than one in 10^9 lists of the smallest catalogue
        raise BadInputError("lists: the draws repeat too often; use another splits.seed")
    return np.where(inside, drawn, 0)


def check_lists(
    lists: pl.DataFrame, interactions: pl.DataFrame, windows: pl.DataFrame, config: SplitsConfig
) -> int:
    """The number of lists proved; LeakageError names the row (from 0), the user and the item.

    Each user has one window, after the history. Each row of LISTS: its block lies in the user's
    window; the list holds the items of the block, each item once; positive are those of the block
    whose rating is above `config.positive_above` or not given, and no others.
    """
    timelines = Timelines(check_table(interactions, INTERACTIONS, "interactions"))
    own_windows = check_table(windows, WINDOWS, "windows")
    timelines.check_windows(own_windows, "kar")
    table, length = check_table(lists, LISTS, "lists"), config.block + config.drawn
    sizes = table.select(pl.col("items", "positive").list.len()).to_numpy()
    for row in np.flatnonzero((sizes != length).any(1))[:1]:
        _refuse(row, table["user_index"][int(row)], f"is not a list of {length} items")
    users, positions = (
        table[name].to_numpy().astype(np.int64) for name in ("user_index", "position")
    )
    _check_places(users, positions, own_windows, config.block)
    ratings = interactions["rating"].fill_null(np.inf).to_numpy()
    for start in range(0, table.height, ROWS):
        rows = slice(start, start + ROWS)
        places = (timelines.offsets[users[rows]] + positions[rows])[:, None]
        places = places + np.arange(config.block)
        part = Part(
            start, users[rows], positions[rows], *(
                table[name][rows].list.to_array(length).to_numpy() for name in ("items", "positive")
            ),
        )  # fmt: skip
        part.check(timelines, timelines.items[places], ratings[places] > config.positive_above)
    return table.height


def _check_places(
    users: np.ndarray, positions: np.ndarray, windows: pl.DataFrame, block: int
) -> None:
    """Every block lies in its user's window."""
    starts, ends, prompted = (windows[c].to_numpy() for c in ("fit_start", "end", "prompted"))
    outside = (positions < starts[users]) | (positions > ends[users] - block) | ~prompted[users]
    for row in np.flatnonzero(outside)[:1]:
        user, position = users[row], positions[row]
        last = ends[user] - 1
        window = f"positions {starts[user]}..{last}" if prompted[user] else "there is none"
        _refuse(row, user, f"its block at position {position} is outside the window ({window})")


@dataclass(frozen=True)
class Part:
    """Some rows of LISTS, from row `start` on: users, positions [n], items and positive [n, L]."""

    start: int
    users: np.ndarray
    positions: np.ndarray
    items: np.ndarray
    positive: np.ndarray

    def check(self, timelines: Timelines, block: np.ndarray, liked: np.ndarray) -> None:
        """block [n, B]: the items really taken from each position on; liked bool [n, B]."""
        ordered = np.sort(self.items, axis=1)
        repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1) | (ordered[:, 0] < 1)
        for row in np.flatnonzero(repeated)[:1]:
            self._refuse(row, f"{self.items[row].tolist()} is not a list of different items")
        same = self.items[:, :, None] == block[:, None, :]
        for row, place in np.argwhere(~same.any(1))[:1]:
            position = self.positions[row]
            self._refuse(row, f"lacks item {block[row, place]} of its block at position {position}")
        told = (same & liked[:, None, :]).any(2)
        for row, place in np.argwhere(told != self.positive)[:1]:
            item = int(self.items[row, place])
            where = timelines.where(int(self.users[row]), item, int(self.positions[row]))
            self._refuse(row, f"labels item {item} wrongly: {where}")

    def _refuse(self, row: int, problem: str) -> NoReturn:
        _refuse(self.start + row, self.users[row], problem)


def _refuse(row: int | np.integer, user: int | np.integer, problem: str) -> NoReturn:
    raise LeakageError(f"lists, row {row}, user {user}: {problem}")
