"""Orders of many rows: ids as their places in id order, rows by user and time, repeats left out."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import polars as pl

SLICE = 1 << 14
"""Rows sorted at once: their keys stay in the processor's cache."""
DENSE = 8
"""Whole-number ids are looked up in a table while it has at most this many entries per row."""


def coded(ids: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Each row's place among the distinct ids [n] int32, and those ids as text in id order.

    Shorter ids come first, then by code point: '2' before '10'. `ids` is String or UInt32.
    """
    if ids.dtype == pl.String:
        distinct = ids.unique().rename("id").to_frame()
        ordered = distinct.sort(pl.col("id").str.len_chars(), "id")["id"]
        return ids.cast(pl.Enum(ordered)).to_physical().to_numpy().astype(np.int32), ordered
    values = ids.to_numpy()
    largest = int(values.max(initial=0))
    if largest > DENSE * len(values) + SLICE:
        numbers, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int32), pl.Series(numbers).cast(pl.String)
    numbers, places = contiguous(occurring(values, largest + 1))
    return gathered(places, values), pl.Series(numbers).cast(pl.String)


def gathered(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """values[rows], a slice at a time: numpy would first copy all of `rows` as 64-bit numbers."""
    taken = np.empty(len(rows), dtype=values.dtype)
    for start in range(0, len(rows), SLICE):
        taken[start : start + SLICE] = values[rows[start : start + SLICE]]
    return taken


def occurring(codes: np.ndarray, n: int) -> np.ndarray:
    """Whether each code below n occurs: bool [n]."""
    occurs = np.zeros(n, dtype=bool)
    for start in range(0, len(codes), SLICE):
        occurs[codes[start : start + SLICE]] = True
    return occurs


def contiguous(occurs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes that occur, ascending, and for every code its place among them (int32)."""
    return np.flatnonzero(occurs), np.cumsum(occurs, dtype=np.int32) - np.int32(1)


def chronological(
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray,
    repeats: Literal["first", "last", "keep"],
) -> np.ndarray:
    """Rows by user and time, rows of one time as they stand; of repeated pairs only one, if asked.

    users, items: int32 [n] codes; times: int64 [n]. Returns uint32 row numbers.
    """
    grouped = None if (users[1:] >= users[:-1]).all() else stable_order(users)
    kept = [np.empty(0, dtype=np.uint32)]
    for start, stop in _slices(users if grouped is None else users[grouped]):
        rows = np.arange(start, stop, dtype=np.uint32) if grouped is None else grouped[start:stop]
        distinct = repeats == "keep" or _ascends(users[rows], items[rows])
        rows = rows[stable_order(users[rows], times[rows])]
        if repeats != "keep" and not distinct:
            rows = rows[_once(users[rows], items[rows], repeats)]
        kept.append(rows)
    return np.concatenate(kept)


def _slices(users: np.ndarray) -> Iterator[tuple[int, int]]:
    """Bounds of runs of whole users (ascending), of about SLICE rows."""
    start = 0
    while start < len(users):
        stop = min(start + SLICE, len(users))
        last = np.searchsorted(users, users[stop - 1], side="left")
        if stop < len(users):
            stop = int(last) if last > start else int(np.searchsorted(users, users[start], "right"))
        yield start, stop
        start = stop


def _ascends(users: np.ndarray, items: np.ndarray) -> bool:
    """Whether rows stand by user (as they do here) and item without a repeat, as many files do."""
    return bool(((users[1:] > users[:-1]) | (items[1:] > items[:-1])).all())


def _once(users: np.ndarray, items: np.ndarray, repeats: Literal["first", "last"]) -> np.ndarray:
    """Whether each row is the first (last) of its user and item: bool [n]."""
    order = stable_order(users, items)
    user, item = users[order], items[order]
    same = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
    kept = np.ones(len(order), dtype=bool)
    kept[order[1:][same] if repeats == "first" else order[:-1][same]] = False
    return kept


def stable_order(*columns: np.ndarray) -> np.ndarray:
    """Row numbers that sort by the columns, the first most significant; ties keep their order.

    One sort of packed 64-bit keys (columns, then the row) where they fit: vectorised, in place.
    """
    lows = [int(column.min(initial=0)) for column in columns]
    widths = [int(c.max(initial=0)) - low for c, low in zip(columns, lows, strict=True)]
    n = len(columns[0])
    bits = [width.bit_length() for width in [*widths, max(n - 1, 0)]]
    if sum(bits) > 64:
        return np.lexsort(columns[::-1]).astype(np.uint32)
    key = np.zeros(n, dtype=np.uint64)
    for column, low, width in zip(columns, lows, bits[:-1], strict=True):
        key <<= np.uint64(width)
        key += (column - low if low else column).astype(np.uint64)
    key <<= np.uint64(bits[-1])
    key += np.arange(n, dtype=np.uint32)
    key.sort()
    key &= np.uint64((1 << bits[-1]) - 1)
    return key.astype(np.uint32)
