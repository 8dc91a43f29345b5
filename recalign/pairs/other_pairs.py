"""Pairs other than a user's best against the worst."""

from itertools import product

import polars as pl

from recalign.config import PairsConfig
from recalign.seeding import stream

PLACES = {"row": pl.Int64, "chosen": pl.Int16, "rejected": pl.Int16, "margin": pl.Float64}


def other_pairs(extremes: pl.DataFrame, config: PairsConfig, floor: float) -> pl.DataFrame:
    """The rows of `extremes`, one for each pair of a user, with its chosen, rejected and margin."""
    found = [
        (row, chosen, rejected, rewards[chosen] - rewards[rejected])
        for row, (user, rewards) in enumerate(extremes.select("user_index", "rewards").iter_rows())
        for chosen, rejected in places(user, rewards, config, floor)
    ]
    pairs = pl.DataFrame(found, schema=PLACES, orient="row")
    return extremes[pairs["row"]].with_columns(pairs.drop("row").get_columns())


def places(
    user: int, rewards: list[float], config: PairsConfig, floor: float
) -> list[tuple[int, int]]:
    """Places of (chosen, rejected) whose rewards differ by more than `floor`, as `config` selects.

    Among equal rewards the lower place comes first.
    """

    def differ(chosen: int, rejected: int) -> bool:
        return rewards[chosen] - rewards[rejected] > floor

    everyone = range(len(rewards))
    best_first = sorted(everyone, key=lambda place: (-rewards[place], place))
    match config.select:
        case "best_worst":
            found = [(best_first[0], min(everyone, key=lambda place: (rewards[place], place)))]
        case "best_random":
            worse = [place for place in everyone if differ(best_first[0], place)]
            draw = int(stream(config.seed, "pairs", user).integers(max(1, len(worse))))
            found = [(best_first[0], place) for place in worse[draw : draw + 1]]
        case "all_above_margin":
            found = list(product(best_first, best_first))
        case "top_bottom_k":
            worst_first = sorted(everyone, key=lambda place: (rewards[place], place))
            found = list(zip(best_first, worst_first, strict=True))[: config.k]
    return [pair for pair in found if differ(*pair)]
