"""history | fit | reward | valid | test: where each window of each user starts."""

import itertools

import numpy as np
import polars as pl

from recalign.config import SplitsConfig
from recalign.errors import BadInputError
from recalign.schemas import WINDOWS, check_table
from recalign.seeding import Streams, stream

MIN_USERS = 30
"""Fewest users of a window that is cut at a moment in time: with fewer nothing can be measured."""
USERS = 1 << 13
"""Users whose random streams are made at once."""
STARTS = ["fit_start", "reward_start", "valid_start", "test_start"]


def split_windows(
    interactions: pl.DataFrame, config: SplitsConfig
) -> tuple[pl.DataFrame, dict[str, int]]:
    """WINDOWS of all users, and counts of users by why they lack a window (zeros left out).

    interactions: INTERACTIONS, sorted by user and position. Counted are `short_sequence` (fewer
    interactions than the windows take), `short_history` (fewer than min_history before the fit
    window), `over_max_users` (not drawn), and, of all others, `no_fit`, `no_reward`, `no_valid`,
    `no_test` (empty windows: temporal protocol). Raises BadInputError when no user has
    a history, a validation or a test.
    """
    users = interactions["user_index"].to_numpy()
    lengths = np.bincount(users)
    starts = _starts(users, interactions["timestamp"].to_numpy(), lengths, config)
    history = starts[:, 0]
    short_sequence = history < 0
    short_history = ~short_sequence & (history < config.min_history)
    long_enough = ~(short_sequence | short_history)
    later = long_enough & (history < lengths)  # under temporal, many have no window at all
    fewer = 0 < config.max_users < later.sum()
    prompted = _drawn(later, history, config) if fewer else long_enough
    if config.protocol != "temporal":
        starts[~prompted] = lengths[~prompted, None]  # the whole sequence is history
        if config.others_fit:  # but for its end: the oracle should see as much as it can
            starts[long_enough & ~prompted, 0] -= config.fit
    sizes = np.diff(starts, axis=1, append=lengths[:, None])
    counts = {
        "short_sequence": int(short_sequence.sum()),
        "short_history": int(short_history.sum()),
        "over_max_users": int((later & ~prompted).sum()),
    }
    for place, name in enumerate(STARTS if config.protocol != "kar" else []):
        empty = (prompted | long_enough & ~later) & (sizes[:, place] == 0) & _wanted(name, config)
        counts[f"no_{name.removesuffix('_start')}"] = int(empty.sum())
    counts = {reason: n for reason, n in counts.items() if n}
    for place in (2, 3) if config.protocol != "kar" else ():  # refuse_few_users tells of those
        if not (prompted & (sizes[:, place] > 0)).any():
            _refuse_empty(STARTS[place].removesuffix("_start"), len(lengths), counts, config)
    columns = dict(zip(STARTS, starts.T, strict=True))
    table = pl.DataFrame(
        {"user_index": np.arange(len(lengths)), **columns, "end": lengths, "prompted": prompted},
        schema_overrides=WINDOWS,
    )
    return check_table(table, WINDOWS, "windows").rechunk(), counts


def _drawn(among: np.ndarray, history: np.ndarray, config: SplitsConfig) -> np.ndarray:
    """Which users are prompted, bool [n_users]: one from each of `max_users` strata of length."""
    users, n_drawn = np.flatnonzero(among), config.max_users
    random = stream(config.seed, "users")
    mixed = random.permutation(users)  # so that chance alone parts equal lengths
    by_length = mixed[np.argsort(history[mixed], kind="stable")]
    cuts = np.arange(n_drawn + 1) * len(users) // n_drawn
    chosen = by_length[cuts[:-1] + random.integers(np.diff(cuts))]
    drawn = np.zeros_like(among)
    drawn[chosen] = True
    return drawn


def _starts(
    users: np.ndarray, timestamps: np.ndarray, lengths: np.ndarray, config: SplitsConfig
) -> np.ndarray:
    """Starts [n_users, 4]; counted from a user's end they are negative in too short a sequence."""
    match config.protocol:
        case "per_user":
            sizes = np.array([config.fit, config.reward, config.valid, config.test])
            return lengths[:, None] - np.cumsum(sizes[::-1])[::-1]
        case "temporal":
            earlier = (timestamps < moment for moment in boundaries(timestamps, config))
            counts = [np.bincount(users[rows], minlength=len(lengths)) for rows in earlier]
            return np.stack(counts, axis=1)
        case "kar":
            history = np.minimum((lengths + 1) // 2, config.first_items)
            none_before = np.arange(len(STARTS)) <= _windows_of(len(lengths), config)[:, None]
            starts = np.where(none_before, history[:, None], lengths[:, None])
            starts[lengths - history < config.block] = -1
            return starts


def _windows_of(n_users: int, config: SplitsConfig) -> np.ndarray:
    """The one window of each user, as its place in STARTS, int64 [n_users].

    Drawn for every user apart, so that other users do not matter.
    """
    streams = Streams(config.seed, "window", last=np.arange(n_users))
    parts = (streams[start : start + USERS] for start in range(0, n_users, USERS))
    draws = [own.random() for part in parts for own in part]
    shares = np.cumsum([config.test_users, config.valid_users, config.reward_users])
    return len(STARTS) - 1 - np.searchsorted(shares, draws, side="right")


def boundaries(timestamps: np.ndarray, config: SplitsConfig) -> np.ndarray:
    """The four moments [4] at which windows start, from shares of all interactions.

    A window holds the interactions from its moment on, so that equal times are never parted; with
    coarse times the shares are met only nearly.
    """
    shares = [config.fit_share, config.reward_share, config.valid_share, config.test_share]
    n = len(timestamps)
    after = np.ceil(np.cumsum(shares[::-1])[::-1] * n - 1e-6).astype(np.int64)
    return np.sort(timestamps)[np.clip(n - after, 0, n - 1)]


def _wanted(start: str, config: SplitsConfig) -> bool:
    """Whether the settings ask for the window at all."""
    name = start.removesuffix("_start")
    sizes = {"fit": config.fit, "reward": config.reward}
    shares = {"fit": config.fit_share, "reward": config.reward_share}
    return bool((sizes if config.protocol == "per_user" else shares).get(name, 1))


def refuse_few_users(windows: pl.DataFrame, config: SplitsConfig) -> None:
    """BadInputError if a window that some users lack is that of fewer than MIN_USERS users.

    windows: WINDOWS. In the temporal protocol few have interactions both before and after a moment
    where people rate everything in one sitting; in KAR's a share of the users may be too small.
    """
    if config.protocol == "per_user":
        return
    prompted = windows.filter("prompted")
    for start, end in itertools.pairwise([*STARTS, "end"]):
        n = prompted.filter(pl.col(start) < pl.col(end)).height
        if n < MIN_USERS and _wanted(start, config):
            window = start.removesuffix("_start")
            raise BadInputError(
                f"splits.protocol = {config.protocol}: only {n} of {windows.height} users have a "
                f"{window} window after a history, {MIN_USERS} are needed; {_more(window, config)}"
                "lower splits.min_history, or use splits.protocol = per_user"
            )


def _more(window: str, config: SplitsConfig) -> str:
    """What gives a window more users."""
    drawn = "raise splits.max_users, " if config.max_users else ""
    if config.protocol == "temporal":
        return f"{drawn}raise splits.{window}_share, "
    shares = {name: f"raise splits.{name}_users" for name in ("reward", "valid", "test")}
    return f"{drawn}{shares.get(window, 'lower the shares of the other windows')}, "


def _refuse_empty(window: str, n_users: int, counts: dict[str, int], config: SplitsConfig) -> None:
    reasons = ", ".join(f"{reason} {n}" for reason, n in counts.items())
    if config.protocol == "per_user":
        sizes = config.fit + config.reward + config.valid + config.test
        mend = (
            f"the windows take {sizes} interactions and min_history {config.min_history} more: "
            "lower splits.fit, reward, valid, test or min_history"
        )
    else:
        mend = "raise the shares, lower splits.min_history, or use splits.protocol = per_user"
    raise BadInputError(f"none of {n_users} users has a {window} window ({reasons}); {mend}")
