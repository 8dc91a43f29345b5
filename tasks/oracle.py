"""Stage oracle: SASRec, fitted on the history windows alone."""

from pathlib import Path

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import local_files
from recalign.config import OracleConfig
from recalign.parquet import read_parquet
from recalign.report.plots import oracle_curves
from recalign.report.stage_page import picture
from recalign.schemas import CURVE_FILE
from recalign.splits.phases import oracle_validation
from tasks.encoding import item_vectors
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import read_tables


def oracle_files(config: OracleConfig) -> dict[str, list[Path]]:
    """What decides the oracle beside its config: a local encoder of the item texts."""
    return local_files("encoder", config.encoder) if config.item_text else {}


@stage(version=4)
def oracle(
    job: Job,
    config: OracleConfig,
    interactions: Artifact,
    splits: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Fit SASRec with early stopping on the window after the history; calibrate its scores."""
    from recalign.oracle.fit import OracleData, fit_oracle  # torch: seconds
    from recalign.oracle.storage import save_oracle

    tables = read_tables(interactions, splits)
    seen = tables.before("oracle", tables.windows["fit_start"].to_numpy())
    text = item_vectors(job, config.encoder, tables.items) if config.item_text else None
    validation = oracle_validation(tables.windows)
    if tables.protocol == "kar":  # windows are long there: validate on what the first list holds
        validation = validation.first(splits.manifest.config["block"])
    data = OracleData(seen, validation.users, validation.targets(tables.sequences), text)
    fitted = fit_oracle(config, data, job.draft.work, job.progress, job.device)
    save_oracle(job.draft.folder, fitted)
    job.draft.count(int(seen.offsets[-1]))
    # The curve's best read all trained positions; what is kept may read fewer.
    kept = float(data.ndcg_at_10(fitted.model).mean()) if len(data.users) else None
    best = {"best_valid_ndcg_at_10": kept}
    fit = {
        "reads": fitted.model.longest,
        "epochs": fitted.curve.height,
        "temperature": fitted.temperature,
    }
    job.draft.tell(best | fit | fitted.calibration)


@oracle.shows
def curves_shown(made: Artifact) -> list[str]:
    """Training loss and validation by epoch."""
    return [picture(svg) for svg in oracle_curves(read_parquet(made.path(CURVE_FILE)))]
