"""The leakage guard: proves per row, from the raw tables, that nothing saw its own future."""

from collections.abc import Callable
from typing import Literal, NoReturn

import numpy as np
import polars as pl

from recalign.errors import LeakageError
from recalign.schemas import INTERACTIONS, PROMPTS, WINDOWS, check_table
from recalign.sequences import Sequences
from recalign.splits.timelines import Timelines

Protocol = Literal["per_user", "temporal", "kar"]


def check_prompts(
    prompts: pl.DataFrame,
    interactions: pl.DataFrame,
    windows: pl.DataFrame,
    phase: str,
    render: Callable[[list[int]], str],
    *,
    protocol: Protocol = "per_user",
) -> int:
    """The number of prompt rows proved; LeakageError names the user, the row (from 0) and the item.

    First the tables: every user's interactions are in order of time, and the windows lie within
    them in order (temporal: every user's window starts at the same moment). Then each row of
    PROMPTS: its user is prompted; its cut-off is the start of `phase`; the items listed are the
    user's at positions first_position..cutoff-1, so none is later than any target of the phase;
    and `render`, given those items as the *interactions* have them, writes the stored text.
    """

    def rendered(_: int, items: list[int]) -> str:
        return render(items)

    start = f"{phase}_start"
    return _prove(prompts, interactions, windows, phase, (start, start), rendered, protocol)


def check_window_prompts(
    prompts: pl.DataFrame,
    interactions: pl.DataFrame,
    windows: pl.DataFrame,
    bounds: tuple[str, str],
    render: Callable[[int, list[int]], str],
    *,
    protocol: Protocol = "per_user",
) -> int:
    """As `check_prompts`, for prompts that end anywhere inside windows, before one target each.

    `bounds` are columns of WINDOWS: the cut-offs lie at positions from the first to below the
    second. `render(row, items)` writes the text of that row of PROMPTS: besides the history it may
    show what belongs to the row, such as candidates.
    """
    name = f"{bounds[0]} to {bounds[1]}"
    return _prove(prompts, interactions, windows, name, bounds, render, protocol)


def _prove(
    prompts: pl.DataFrame,
    interactions: pl.DataFrame,
    windows: pl.DataFrame,
    name: str,
    bounds: tuple[str, str],
    render: Callable[[int, list[int]], str],
    protocol: Protocol,
) -> int:
    timelines = Timelines(check_table(interactions, INTERACTIONS, "interactions"))
    table = check_table(prompts, PROMPTS, "prompts")
    checked_windows = check_table(windows, WINDOWS, "windows")
    timelines.check_windows(checked_windows, protocol)
    users = table["user_index"].to_numpy()
    cutoffs = table["cutoff"].to_numpy().astype(np.int64)
    _check_cutoffs(users, cutoffs, checked_windows, name, bounds)
    first = table["first_position"].to_numpy().astype(np.int64)
    _check_items(timelines, users, first, cutoffs, table["items"])
    for row, (user, start, stop, text) in enumerate(
        zip(users.tolist(), first.tolist(), cutoffs.tolist(), table["prompt"], strict=True)
    ):
        if render(row, timelines.items_of(user, start, stop).tolist()) != text:
            _refuse(
                row, user, f"its text is not what positions {start}..{stop - 1} render to: {text}"
            )
    return table.height


def _check_cutoffs(
    users: np.ndarray,
    cutoffs: np.ndarray,
    windows: pl.DataFrame,
    name: str,
    bounds: tuple[str, str],
) -> None:
    """Cut-offs at the one bound, or, where the two differ, from the first to below the second."""
    prompted = windows["prompted"].to_numpy()
    known = (users >= 0) & (users < windows.height)
    for row in np.flatnonzero(~known)[:1]:
        _refuse(row, users[row], "has no windows")
    for row in np.flatnonzero(~prompted[users])[:1]:
        _refuse(row, users[row], "is not prompted: too short to have windows")
    first, end = (windows[bound].to_numpy()[users].astype(np.int64) for bound in bounds)
    if bounds[0] == bounds[1]:
        for row in np.flatnonzero(cutoffs != first)[:1]:
            _refuse(
                row,
                users[row],
                f"its cut-off is position {cutoffs[row]}, the {name} window starts at {first[row]}",
            )
        return
    for row in np.flatnonzero((cutoffs < first) | (cutoffs >= end))[:1]:
        _refuse(
            row,
            users[row],
            f"its cut-off is position {cutoffs[row]}, outside {name}, "
            f"positions {first[row]}..{end[row] - 1}",
        )


def _check_items(
    timelines: Timelines,
    users: np.ndarray,
    first: np.ndarray,
    cutoffs: np.ndarray,
    items: pl.Series,
) -> None:
    """Every listed item stands at its position, and none is left out or added."""
    sizes = items.list.len().fill_null(0).to_numpy().astype(np.int64)
    wrong = (first < 0) | (sizes != cutoffs - first)
    for row in np.flatnonzero(wrong)[:1]:
        _refuse(
            row,
            users[row],
            f"lists {sizes[row]} items for positions {first[row]}..{cutoffs[row] - 1}",
        )
    rows = np.repeat(np.arange(len(users)), sizes)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    positions = first[rows] + within
    expected = timelines.items[timelines.offsets[users[rows]] + positions]
    shown = items.explode(empty_as_null=False, keep_nulls=False).fill_null(-1).to_numpy()
    for place in np.flatnonzero(shown != expected)[:1]:
        row, item = rows[place], int(shown[place])
        where = timelines.where(users[row], item, cutoffs[row])
        _refuse(
            row,
            users[row],
            f"shows item {item} at position {positions[place]}, where the user took item "
            f"{expected[place]}; {where}",
        )


def check_fit(
    name: str,
    users: np.ndarray,
    stops: np.ndarray,
    items_seen: Sequences,
    interactions: pl.DataFrame,
    limits: np.ndarray,
) -> int:
    """The number of users proved for the fit of the model `name`.

    Row b says that the fit saw all of the sequence b of `items_seen` of user `users[b]`: proved to
    be that user's items at positions below `stops[b]`, and `stops[b]` to be at most `limits[b]`.
    Raises LeakageError with the user, the row (from 0) and the item.
    """
    timelines = Timelines(check_table(interactions, INTERACTIONS, "interactions"))
    if not len(users) == len(stops) == len(limits) == items_seen.n_users:
        raise ValueError(
            f"{name}: {len(users)} users, {len(stops)} stops, {len(limits)} limits, "
            f"{items_seen.n_users} sequences"
        )
    rows = np.arange(items_seen.n_users)
    whole = items_seen.slices(rows, np.zeros_like(rows), items_seen.lengths)
    for row, (user, stop, limit, seen) in enumerate(
        zip(users.tolist(), stops.tolist(), limits.tolist(), whole, strict=True)
    ):
        _check_fit_row(name, timelines, row, user, stop, limit, seen)
    return len(users)


def _check_fit_row(
    name: str, timelines: Timelines, row: int, user: int, stop: int, limit: int, seen: np.ndarray
) -> None:
    if not 0 <= user < timelines.n_users:
        _refuse(row, user, "has no interactions", name)
    if stop > limit:
        _refuse(row, user, f"was fitted on positions below {stop}, allowed are below {limit}", name)
    own = timelines.items_of(user, 0, stop)
    if np.array_equal(seen, own):
        return
    if len(seen) != len(own):
        extra = f", the last of them item {seen[-1]}" if len(seen) else ""
        _refuse(row, user, f"saw {len(seen)} items instead of {len(own)}{extra}", name)
    place = int(np.flatnonzero(seen != own)[0])
    item = int(seen[place])
    where = timelines.where(user, item, limit)
    _refuse(
        row,
        user,
        f"saw item {item} at position {place}, where the user took item {own[place]}; {where}",
        name,
    )


def _refuse(
    row: int | np.integer, user: int | np.integer, seen: str, table: str = "prompts"
) -> NoReturn:
    raise LeakageError(f"{table}, row {row}, user {user}: {seen}")
