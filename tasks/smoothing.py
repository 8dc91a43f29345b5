"""Stage smoothing: how probably each rejected item is really the preferred one."""

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import SmoothingConfig
from recalign.parquet import read_parquet
from recalign.schemas import COMPLETIONS, REJECTIONS
from recalign.smoothing.estimators import PairScores, smooth, warn_of_halves
from recalign.smoothing.folds import FOLDS, STOPS, fold_name
from recalign.smoothing.preferences import asked_items, preference_table, quality_table
from recalign.splits.rejected import check_judged
from recalign.titles.names import distinct_titles
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import Tables, read_tables, true_smoothing


@stage(version=2)
def smoothing(
    job: Job,
    config: SmoothingConfig,
    interactions: Artifact,
    splits: Artifact,
    rejections: Artifact,
    oracle: Artifact | None = None,
) -> None:
    """eps of every rejected item, by an oracle that did not see the pair's chosen item.

    Neither its weights nor its early stop and temperature, which are chosen on the fit window,
    before any pair. `oracle` is the one of the earlier cut-off, or (cross_fitted) those of all
    folds.
    """
    tables = read_tables(interactions, splits)
    table = REJECTIONS.read(rejections)
    truth = true_smoothing(interactions, tables.items, table)
    judged = None
    if oracle is not None:
        judged = _judge(job, config, tables, table, oracle)
    shape = (table.height, len(table["rejected"][0]))
    eps = smooth(config, shape, judged, truth)
    warn_of_halves(eps)
    quality = quality_table(table["strategies"].to_list(), eps, config.cap, judged, truth)
    made = preference_table(table, distinct_titles(tables.items), eps)
    COMPLETIONS.write(made, job.draft)
    quality.write_parquet(job.draft.path("quality.parquet"), compression="zstd")
    job.draft.count(made.height)
    job.draft.tell({"smoothing": float(eps.mean()), "strategies": quality.to_dicts()})


def _judge(
    job: Job, config: SmoothingConfig, tables: Tables, table: pl.DataFrame, oracle: Artifact
) -> PairScores:
    """Scores of every pair by an oracle that is proved not to have seen its chosen item."""
    from recalign.oracle.inference import scores_of  # torch: seconds
    from recalign.oracle.storage import load_oracle

    users, positions = (table[name].to_numpy() for name in ("user_index", "position"))
    if config.oracle == "earlier":
        stops = tables.windows["reward_start"].to_numpy()
        judges = [(oracle.folder, np.arange(len(users)), stops)]
    else:
        folds = read_parquet(oracle.path(FOLDS))["fold"].to_numpy()
        judges = [
            (
                oracle.path(fold_name(fold)),
                np.flatnonzero(folds[users] == fold),
                read_parquet(oracle.path(fold_name(fold)) / STOPS)["stop"].to_numpy(),
            )
            for fold in np.unique(folds[users]).tolist()
        ]
    items = asked_items(table)
    scores = np.empty(items.shape, dtype=np.float32)
    temperature = np.ones(len(items))
    told = []
    for folder, rows, stops in judges:
        check_judged(users[rows], positions[rows], stops[users[rows]])
        model, facts = load_oracle(folder, job.device)
        scores[rows] = scores_of(model, tables.sequences, users[rows], positions[rows], items[rows])
        temperature[rows] = facts["temperature"] if config.calibrated else 1.0
        told.append({"temperature": facts["temperature"], **facts["calibration"]})
    job.draft.tell({"oracles": told, "pairs_proved": len(users)})
    n_judged = 1 + len(table["rejected"][0])
    listed = scores[:, n_judged:]
    return PairScores(scores[:, :n_judged], temperature, listed if listed.shape[1] else None)
