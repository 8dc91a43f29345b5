"""What whole sets of recommended lists hold: how much of the catalogue, how popular."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from recalign.metrics import average_popularity, coverage, gini, long_tail_share
from recalign.schemas import RECOMMENDED


def spread(recommended: np.ndarray, n_items: int) -> dict[str, float]:
    """Coverage and Gini coefficient of all recommended lists [N, k] together."""
    return {"coverage": coverage(recommended, n_items), "gini": gini(recommended, n_items)}


def described(recommended: np.ndarray, popularity: np.ndarray) -> dict[str, float]:
    """The columns of RECOMMENDED for recommended lists [N, k], over which its means go.

    One list per user or, in KAR's protocol, one per list that is re-ranked, of which a user has
    several. popularity [I+1]: interactions with each item in the history windows, column 0 aside.
    """
    return spread(recommended, len(popularity) - 1) | {
        "average_popularity": float(np.nanmean(average_popularity(recommended, popularity))),
        "long_tail_share": float(np.nanmean(long_tail_share(recommended, popularity))),
    }


def recommended_table(described: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """RECOMMENDED from the columns of each row, by label."""
    lines = [{"row": label, **columns} for label, columns in described.items()]
    return pl.DataFrame(lines, schema=RECOMMENDED)
