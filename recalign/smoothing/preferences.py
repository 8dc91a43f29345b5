"""What alignment is trained on, and how far its smoothing can be trusted."""

import numpy as np
import polars as pl

from recalign.schemas import COMPLETIONS, check_table
from recalign.sequences import padded_items
from recalign.smoothing.estimators import PairScores, pairwise
from recalign.smoothing.quality import calibration_error, expected_auc, expected_brier

QUALITY = {
    "strategy": pl.String,  # "all" pools them
    "rejected": pl.Int64,  # rejected items
    "smoothing": pl.Float64,  # mean eps
    "capped": pl.Float64,  # share of eps lowered to the cap
    "oracle_prefers": pl.Float64,  # share that the oracle scores above the chosen; null: not asked
    "truth": pl.Float64,  # mean true P(rejected preferred); null, like all that follows: unknown
    "auc": pl.Float64,  # of eps for "the rejected is preferred"
    "ece": pl.Float64,  # |eps - truth| in bins of eps
    "ece_uncalibrated": pl.Float64,  # of sigma(s_l - s_w), without temperature or cap
    "ece_calibrated": pl.Float64,  # of sigma((s_l - s_w) / tau), without cap
    "brier_uncalibrated": pl.Float64,  # expected squared errors of the same two
    "brier_calibrated": pl.Float64,
}


def asked_items(rejections: pl.DataFrame) -> np.ndarray:
    """What the oracle scores: chosen, K rejected, C candidates, int64 [n, 1 + K + C] (0 padded)."""
    asked = rejections.select("chosen", "rejected", "candidates").iter_rows()
    return padded_items(
        [[chosen, *rejected, *candidates] for chosen, rejected, candidates in asked]
    )


def preference_table(
    rejections: pl.DataFrame, titles: list[str], smoothing: np.ndarray
) -> pl.DataFrame:
    """COMPLETIONS of the REJECTIONS table, row by row; smoothing [n, K], titles by item index."""
    asked = [
        [chosen, *rejected] for chosen, rejected in rejections.select("chosen", "rejected").rows()
    ]
    given = {
        "completions": [[titles[item] for item in items] for items in asked],
        "rejected": [list(range(1, len(items))) for items in asked],
        "smoothing": smoothing.tolist(),
    }
    table = rejections.select(
        "user_index",
        "position",
        "prompt",
        *(pl.lit(None, COMPLETIONS[name]).alias(name) for name in ("samples", "rewards")),
        *(pl.Series(name, lists, COMPLETIONS[name]) for name, lists in given.items()),
        chosen=pl.lit(0, pl.Int16),
    )
    return check_table(table, COMPLETIONS, "completions")


def quality_table(
    strategies: list[list[str]],
    smoothing: np.ndarray,
    cap: float,
    judged: PairScores | None = None,
    truth: np.ndarray | None = None,
) -> pl.DataFrame:
    """QUALITY, a row per strategy of the rejected [n, K], and "all" where there are several.

    smoothing [n, K]; judged: None where no oracle was asked; truth [n, K], None where unknown.
    """
    named = np.array(strategies)
    names = np.unique(named).tolist()
    rows = []
    for name in [*names, *(["all"] if len(names) > 1 else [])]:
        inside = np.ones(named.shape, bool) if name == "all" else named == name
        eps = smoothing[inside]
        row: dict[str, object] = {"strategy": name, "rejected": len(eps), "smoothing": eps.mean()}
        row["capped"] = (eps >= cap).mean()
        if judged is not None:
            ahead = judged.scores[:, 1:] > judged.scores[:, :1]
            row["oracle_prefers"] = ahead[inside].mean()
        if truth is not None:
            row |= {"truth": truth[inside].mean(), "auc": expected_auc(eps, truth[inside])}
            row["ece"] = calibration_error(eps, truth[inside])
        if truth is not None and judged is not None:
            for end, tau in (("uncalibrated", 1.0), ("calibrated", judged.temperature)):
                estimate = pairwise(judged.scores, tau)[inside]
                row[f"ece_{end}"] = calibration_error(estimate, truth[inside])
                row[f"brier_{end}"] = expected_brier(estimate, truth[inside])
        rows.append(row)
    return pl.DataFrame(rows, schema=QUALITY)
