"""What rejected items are like, strategy by strategy, and how many are rejected wrongly."""

import numpy as np
import polars as pl

from recalign.config import ASKS_SFT
from recalign.metrics import gini
from recalign.sequences import Sequences

DESCRIBED = {
    "strategy": pl.String,  # "all" pools them
    "rejected": pl.Int64,  # rejected items, over all pairs
    "distinct": pl.Int64,  # different ones among them
    "gini": pl.Float64,  # of how often items are rejected: 0 all alike, 1 a single one
    "log_popularity_chosen": pl.Float64,  # mean log(1 + interactions in history windows)
    "log_popularity": pl.Float64,  # the same of the rejected
    "cosine_target": pl.Float64,  # mean text similarity of rejected and chosen
    "cosine_history": pl.Float64,  # mean text similarity of rejected and the mean shown item
    "above_truth": pl.Float64,  # share that the SFT model ranks above the chosen; null: not asked
    "taken_later": pl.Float64,  # share that the user takes after this position, whenever
    "false_negatives": pl.Float64,  # mean true P(rejected preferred); null: the truth is unknown
}


def describe_rejections(
    rejections: pl.DataFrame,
    sequences: Sequences,
    popularity: np.ndarray,
    vectors: np.ndarray,
    truth: np.ndarray | None = None,
) -> pl.DataFrame:
    """DESCRIBED of the REJECTIONS table, one row per strategy, and "all" where there are several.

    popularity [I+1]: interactions in history windows; vectors [I+1, e]: unit text vectors; truth
    [n, K]: the synthetic world's P(rejected preferred). `taken_later` reads positions that no
    stage before the test may see: it is a figure to report, and nothing is chosen by it.
    """
    flat = _one_per_rejected(rejections, sequences, truth)
    rejected, chosen = flat["rejected"].to_numpy(), flat["chosen"].to_numpy()
    flat = flat.with_columns(
        log_popularity_chosen=np.log1p(popularity[chosen]),
        log_popularity=np.log1p(popularity[rejected]),
        cosine_target=(vectors[rejected] * vectors[chosen]).sum(1).astype(np.float64),
        cosine_history=_similarity_to_history(
            rejections, vectors, flat["row"].to_numpy(), rejected
        ),
    )
    parts = flat.partition_by("strategy", maintain_order=True, include_key=True)
    named = sorted((part["strategy"][0], part) for part in parts)
    named += [("all", flat)] if len(named) > 1 else []
    rows = [_described(name, part, sequences.n_items) for name, part in named]
    return pl.DataFrame(rows, schema=DESCRIBED)


def _one_per_rejected(
    rejections: pl.DataFrame, sequences: Sequences, truth: np.ndarray | None
) -> pl.DataFrame:
    """One row per rejected item: row (of REJECTIONS), chosen, rejected, strategy, ..."""
    rows = rejections["rejected"].to_list()
    false = [[None] * len(items) for items in rows] if truth is None else truth.tolist()
    lists = ("rejected", "scores", "strategy", "false_negatives")
    above = pl.col("scores") > pl.col("chosen_score")
    flat = (
        rejections.with_row_index("row")
        .with_columns(
            pl.col("strategies").alias("strategy"),
            pl.Series("false_negatives", false, pl.List(pl.Float64)),
        )
        .select("row", "user_index", "position", "chosen", "chosen_score", *lists)
        .explode(*lists)
        .with_columns(above_truth=pl.when(pl.col("strategy").is_in(ASKS_SFT)).then(above))
    )
    places = (flat[name].to_numpy() for name in ("user_index", "position", "rejected"))
    return flat.with_columns(taken_later=sequences.taken_after(*places))


def _similarity_to_history(
    rejections: pl.DataFrame, vectors: np.ndarray, rows: np.ndarray, rejected: np.ndarray
) -> np.ndarray:
    """Cosine of each rejected item [m] and the mean of the history its row shows."""
    means = np.array([vectors[items].mean(0) for items in rejections["history"].to_list()])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return (vectors[rejected] * means[rows]).sum(1).astype(np.float64)


def _described(name: str, part: pl.DataFrame, n_items: int) -> dict[str, object]:
    means = [column for column in DESCRIBED if column in part.columns and column != "rejected"]
    return {
        "strategy": name,
        "rejected": part.height,
        "distinct": part["rejected"].n_unique(),
        "gini": gini(part["rejected"].to_numpy(), n_items),
    } | {column: part[column].mean() for column in means if column != "strategy"}
