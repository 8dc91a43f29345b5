"""Stage fold_oracles: one oracle per fold of the users, none of which saw its fold's pairs."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import FoldsConfig, OracleConfig
from recalign.smoothing.folds import FOLDS, STOPS, fold_name, folds_of, stops_of
from recalign.splits.phases import phase_of
from tasks.encoding import item_vectors
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import Tables, read_tables


@stage(version=3)
def fold_oracles(
    job: Job,
    config: FoldsConfig,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Fit the oracle anew per fold: up to validation on other users, on history alone on its own.

    Stopped early and calibrated on the validation window of the other users. A fold that is
    finished is not fitted again after a kill.
    """
    from recalign.oracle.storage import load_oracle  # torch: seconds

    tables = read_tables(interactions, splits)
    settings = OracleConfig(**oracle.manifest.config)
    text = item_vectors(job, settings.encoder, tables.items) if settings.item_text else None
    folds = folds_of(tables.sequences.n_users, config.folds, config.seed)
    told = {}
    for fold in range(config.folds):
        done = job.draft.work / fold_name(fold)
        if not done.exists():
            _fit_fold(job, settings, tables, folds, fold, text)
        shutil.copytree(done, job.draft.path(fold_name(fold)))
        facts = load_oracle(done)[1]
        told[fold_name(fold)] = {"temperature": facts["temperature"], **facts["calibration"]}
    table = pl.DataFrame({"user_index": np.arange(len(folds)), "fold": folds})
    table.write_parquet(job.draft.path(FOLDS), compression="zstd")
    job.draft.count(len(folds))
    job.draft.tell(told)


def _fit_fold(
    job: Job,
    settings: OracleConfig,
    tables: Tables,
    folds: np.ndarray,
    fold: int,
    text: np.ndarray | None,
) -> None:
    """Fit, and save into the fold's folder in one rename."""
    from recalign.oracle.fit import OracleData, fit_oracle
    from recalign.oracle.storage import save_oracle

    done = job.draft.work / fold_name(fold)
    starts = (tables.windows[name].to_numpy() for name in ("fit_start", "valid_start"))
    stops = stops_of(folds, fold, *starts)
    seen = tables.before(done.name, stops)
    phase = phase_of(tables.windows, "valid")
    others = folds[phase.users] != fold
    data = OracleData(seen, phase.users[others], phase.targets(tables.sequences)[others], text)
    work = job.draft.work / f"fitting-{fold}"
    fitted = fit_oracle(settings, data, work, job.progress, job.device)
    draft = done.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    save_oracle(draft, fitted)
    read = pl.DataFrame({"user_index": np.arange(len(stops)), "stop": seen.lengths})
    read.write_parquet(draft / STOPS, compression="zstd")
    draft.rename(done)
