"""What users of the synthetic world truly think of items, and how noise blurs it.

An item's utility to a user is its `appeal` (the popularity term, equal for all users) plus the
weight of every attribute value that the user holds dear at that time. The user takes the item
with the largest utility + noise * Gumbel(0, 1), so choices follow a multinomial logit.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class TrueWorld:
    """The world as ingest kept it: the tables TRUTH, ITEMS and APPEAL, and the scale of noise."""

    truth: pl.DataFrame
    items: pl.DataFrame
    appeal: pl.DataFrame
    noise: float


def utilities(
    world: TrueWorld, users: np.ndarray, positions: np.ndarray, item_indices: np.ndarray
) -> np.ndarray:
    """True utility of items to users at a position of their sequence, float64 [B, K].

    A user's tastes at position p are the rows of TRUTH with the largest from_position <= p.
    users, positions: int [B]; item_indices: int [B, K] (1..n_items; 0 gives 0).
    """
    item_values, value_codes = _coded_attributes(world.items)
    regimes, weights = _coded_tastes(world.truth, value_codes)
    rows = _regime_rows(regimes, users, positions)
    appeal = np.zeros(world.items.height + 1)
    appeal[world.appeal["item_index"].to_numpy()] = world.appeal["appeal"].to_numpy()
    total = appeal[item_indices]
    for column in item_values.T:  # the few attributes of an item: [n_items + 1] codes each
        total += weights[rows[:, None], column[item_indices]]
    return total


def preference_probability(
    utility_a: np.ndarray, utility_b: np.ndarray, noise: float
) -> np.ndarray:
    """P(a user prefers a to b) = sigma((u_a - u_b) / noise): two Gumbels differ logistically."""
    return 1 / (1 + np.exp(np.clip((utility_b - utility_a) / noise, -700, 700)))


def rejected_preferred(
    world: TrueWorld,
    users: np.ndarray,
    positions: np.ndarray,
    chosen: np.ndarray,
    rejected: np.ndarray,
) -> np.ndarray:
    """The true P(user prefers the rejected to the chosen item), float64 [n, K].

    Asked anew, at that position: that the user did take the chosen one does not count.
    users, positions, chosen [n]; rejected [n, K].
    """
    asked = np.concatenate([chosen[:, None], rejected], axis=1)
    utility = utilities(world, users, positions, asked)
    return preference_probability(utility[:, 1:], utility[:, :1], world.noise)


def match_weights(weights: np.ndarray, item_values: np.ndarray) -> np.ndarray:
    """Sum of the taste weights of each item's values, float32 [B, I].

    weights: [B, V + 1], its last column 0; item_values: int [I, A] value codes, V where an item
    has fewer than A values.
    """
    total = np.zeros((len(weights), len(item_values)), dtype=np.float32)
    for column in item_values.T:
        total += weights[:, column]
    return total


def _coded_attributes(items: pl.DataFrame) -> tuple[np.ndarray, pl.DataFrame]:
    """Value codes of every item, int64 [n_items + 1, A] (V: none), and the table of codes."""
    values = (
        items.select("item_index", "attributes")
        .explode("attributes")
        .drop_nulls()
        .unnest("attributes")
        .unique(["item_index", "name", "value"], maintain_order=True)
    )
    codes = values.select("name", "value").unique(maintain_order=True).with_row_index("code")
    coded = values.join(codes, on=["name", "value"]).with_columns(
        slot=pl.int_range(pl.len()).over("item_index")
    )
    n_slots = int(coded["slot"].max()) + 1  # type: ignore[arg-type]
    table = np.full((int(items["item_index"].max()) + 1, n_slots), len(codes))  # type: ignore[arg-type]
    table[coded["item_index"].to_numpy(), coded["slot"].to_numpy()] = coded["code"].to_numpy()
    return table, codes


def _coded_tastes(truth: pl.DataFrame, codes: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """The (user, from_position) regimes with their row, and weights float64 [R, V + 1]."""
    regimes = (
        truth.select("user_index", "from_position")
        .unique()
        .sort("user_index", "from_position")
        .with_row_index("row")
    )
    coded = truth.join(regimes, on=["user_index", "from_position"])
    coded = coded.join(codes, on=["name", "value"])
    weights = np.zeros((len(regimes), len(codes) + 1))
    weights[coded["row"].to_numpy(), coded["code"].to_numpy()] = coded["weight"].to_numpy()
    return regimes, weights


def _regime_rows(regimes: pl.DataFrame, users: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Row of the regime in force for each (user, position), int64 [B]."""
    width = int(max(regimes["from_position"].max(), positions.max())) + 1
    starts = regimes["user_index"].to_numpy().astype(np.int64) * width
    starts += regimes["from_position"].to_numpy()
    return np.searchsorted(starts, users.astype(np.int64) * width + positions, side="right") - 1
