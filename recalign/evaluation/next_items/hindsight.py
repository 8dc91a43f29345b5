"""eps in hindsight: whether users took later what was rejected for them."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from recalign.evaluation.intervals import TAILS, drawn_counts
from recalign.metrics import auc
from recalign.schemas import HINDSIGHT
from recalign.sequences import Sequences


def rejected_eps(rejections: pl.DataFrame, completions: pl.DataFrame) -> pl.DataFrame:
    """One row per smoothed rejection: user_index, position, item, eps.

    rejections: REJECTIONS; completions: the COMPLETIONS that smoothing made of them.
    """
    smoothed = completions.select("user_index", "position", place="rejected", eps="smoothing")
    asked = rejections.select("user_index", "position", items="rejected")
    flat = smoothed.explode("place", "eps").join(
        asked, on=["user_index", "position"], how="left", maintain_order="left"
    )
    item = pl.col("items").list.get(pl.col("place") - 1)  # place 0 is the chosen item's
    return flat.select("user_index", "position", "eps", item=item)


def hindsight_table(
    smoothed: Mapping[str, pl.DataFrame],
    sequences: Sequences,
    popularity: np.ndarray,
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """HINDSIGHT of `rejected_eps` by name of the pairs; without those whose eps are all equal.

    popularity [I+1]: interactions in history windows. An item that a user takes later was rejected
    wrongly in a way; most that are welcome are never taken. So a good eps is larger for items that
    are taken, but is not their probability of being taken.
    """
    lines = []
    for name, table in smoothed.items():
        if table["eps"].n_unique() < 2:
            continue
        columns = (table[one].to_numpy() for one in ("user_index", "position", "item"))
        users, positions, items = columns
        later, eps = sequences.taken_after(users, positions, items), table["eps"].to_numpy()
        lines.append(
            {
                "pairs": name,
                "rejected": len(eps),
                "n_users": len(np.unique(users)),
                "taken_later": later.mean(),
                "auc_popularity": float(auc(popularity[items], later * 1.0, ~later * 1.0)),
            }
            | _told(users, eps, later * 1.0, n_resamples, seed)
        )
    return pl.DataFrame(lines, schema=HINDSIGHT).fill_nan(None)


def _told(
    users: np.ndarray, eps: np.ndarray, later: np.ndarray, n_resamples: int, seed: int
) -> dict[str, float]:
    """AUC and correlation of eps with `later` [m], 0 or 1, with intervals over users drawn anew."""
    _, owners = np.unique(users, return_inverse=True)
    powers = np.stack([np.ones_like(eps), eps, later, eps**2, later**2, eps * later], axis=1)
    sums = np.zeros((int(owners.max()) + 1, powers.shape[1]))
    np.add.at(sums, owners, powers)
    aucs, correlations = [auc(eps, later, 1 - later)], [_correlation(powers.sum(0))]
    for counts in drawn_counts(len(sums), n_resamples, seed, width=len(eps)):
        weights = counts[:, owners]
        aucs += auc(eps, weights * later, weights * (1 - later)).tolist()
        correlations += _correlation(counts @ sums).tolist()
    told: dict[str, float] = {}
    for name, (found, *draws) in (("auc", aucs), ("correlation", correlations)):
        known = [one for one in draws if not np.isnan(one)]
        low, high = np.quantile(known, TAILS) if known else (np.nan, np.nan)
        told |= {name: float(found), f"{name}_low": low, f"{name}_high": high}
    return told


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's from sums [..., 6] of 1, x, y, x^2, y^2, xy; NaN where x or y does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    both = (n * xx - x**2) * (n * yy - y**2)
    return np.where(both > 0, (n * xy - x * y) / np.sqrt(np.where(both > 0, both, 1)), np.nan)
