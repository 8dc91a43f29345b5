"""Orders of many rows: ids as codes in id order, rows by user and time, repeats left out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

SLICE = 1 << 13
"""Rows sorted at once: their keys stay in the processor's cache."""
CHUNK = 1 << 17
"""Rows converted at once: numpy counts and looks up only 64-bit copies."""
Repeats = Literal["first", "last", "keep"]


@dataclass(frozen=True)
class Ids:
    """The ids behind the codes 0..n-1, in id order: shorter first, then by code point.

    '2' stands before '10'. `texts` [n] are the ids, None where each code is the id itself.
    """

    n: int
    texts: pl.Series | None

    def of(self, codes: np.ndarray) -> pl.Series:
        """The ids of `codes`, as text."""
        return pl.Series(codes).cast(pl.String) if self.texts is None else self.texts.gather(codes)


def coded(ids: pl.Series) -> tuple[np.ndarray, Ids]:
    """The codes (writable int32 [n]) of `ids`, String or UInt32, and what they stand for."""
    if ids.dtype == pl.String:
        distinct = ids.unique().rename("id").to_frame()
        ordered = distinct.sort(pl.col("id").str.len_chars(), "id")["id"]
        codes = ids.cast(pl.Enum(ordered)).to_physical().cast(pl.Int32)
        return codes.to_numpy(writable=True), Ids(len(ordered), ordered)
    largest = int(ids.max() or 0)  # type: ignore[arg-type]  # of UInt32
    if largest > len(ids) + SLICE:  # tables of all numbers up to it would outgrow the rows
        numbers, places = np.unique(ids.to_numpy(), return_inverse=True)
        return places.astype(np.int32), Ids(len(numbers), pl.Series(numbers).cast(pl.String))
    return ids.to_numpy(writable=True).view(np.int32), Ids(largest + 1, None)


def parts(n: int, size: int = CHUNK) -> Iterator[slice]:
    """n rows, `size` at a time."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def counted(codes: np.ndarray, n: int) -> np.ndarray:
    """How often each code below n occurs: int64 [n]."""
    counts = np.zeros(n, dtype=np.int64)
    for part in parts(len(codes), max(CHUNK, n)):  # each part costs n counts
        counts += np.bincount(codes[part], minlength=n)
    return counts


def looked_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """table[codes], without a 64-bit copy of all codes."""
    found = np.empty(len(codes), dtype=table.dtype)
    for part in parts(len(codes)):
        found[part] = table[codes[part]]
    return found


def chronological(columns: dict[str, np.ndarray], repeats: Repeats) -> dict[str, np.ndarray]:
    """Rows by user and time, rows of one time as they stand; of repeated pairs only one, if asked.

    columns: "user" and "item" int32 [n] codes, "time" integers [n], and any others. The sorted
    columns stand in the memory of those given: nothing but a slice of them exists twice.
    """
    columns = dict(columns)
    if not (columns["user"][1:] >= columns["user"][:-1]).all():
        grouped = stable_order(columns["user"])
        for name in list(columns):
            columns[name] = looked_up(columns.pop(name), grouped)
    n_kept = 0
    for start, stop in _slices(columns["user"]):
        part = {name: column[start:stop] for name, column in columns.items()}
        rows = _sorted_rows(part, repeats)
        whole = n_kept == start and len(rows) == stop - start
        for name, column in columns.items():
            if whole and name == "user":
                continue  # ascending already
            # never beyond `start`: only rows that were read are written over
            column[n_kept : n_kept + len(rows)] = part[name].take(rows)
        n_kept += len(rows)
    return {name: column[:n_kept] for name, column in columns.items()}


def _sorted_rows(columns: dict[str, np.ndarray], repeats: Repeats) -> np.ndarray:
    """`chronological` of a few rows of ascending users: the rows to take, int64."""
    users, items = columns["user"], columns["item"]
    rows = stable_order(users, columns["time"])
    # many files stand by user and item without a repeat
    ascends = ((users[1:] > users[:-1]) | (items[1:] > items[:-1])).all()
    if repeats == "keep" or ascends:
        return rows
    return rows[_once(users[rows], items[rows], repeats)]


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

    int64. One sort of packed 64-bit keys (columns, then the row) where they fit: vectorised.
    """
    lows = [int(column.min(initial=0)) for column in columns]
    widths = [int(c.max(initial=0)) - low for c, low in zip(columns, lows, strict=True)]
    n = len(columns[0])
    bits = [width.bit_length() for width in [*widths, max(n - 1, 0)]]
    if sum(bits) > 64:
        return np.lexsort(columns[::-1])
    key = np.zeros(n, dtype=np.uint64)
    for column, low, width in zip(columns, lows, bits[:-1], strict=True):
        key <<= np.uint64(width)
        key += (column - low if low else column).astype(np.uint64)
    key <<= np.uint64(bits[-1])
    key += np.arange(n, dtype=np.uint32)
    key.sort()
    key &= np.uint64((1 << bits[-1]) - 1)
    return key.view(np.int64)
