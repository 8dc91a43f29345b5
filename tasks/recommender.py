"""Stage recommender: frozen SASRec plus what the reasonings say."""

from pathlib import Path

from recalign.artifacts.artifact import Artifact
from recalign.config import RecommenderConfig
from recalign.schemas import CURVE_FILE, REASONINGS
from recalign.splits.phases import phase_of
from tasks.encoding import item_vectors, open_encoder
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import read_tables


@stage(version=1)
def recommender(
    job: Job,
    config: RecommenderConfig,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    reasonings: Artifact,
    files: dict[str, list[Path]] | None = None,
) -> None:
    """Fit the adapter on the fit window; stop unless real reasonings beat shuffled ones."""
    from recalign.oracle.inference import states_of  # torch: seconds
    from recalign.oracle.storage import load_oracle
    from recalign.recommender.examples import ItemVectors
    from recalign.recommender.fit import fit_recommender
    from recalign.recommender.signal import require_signal
    from recalign.recommender.storage import save_recommender
    from recalign.recommender.window import fit_examples

    tables = read_tables(interactions, splits)
    seen = tables.before("recommender", tables.windows["reward_start"].to_numpy())
    phase = phase_of(tables.windows, "fit")
    model, _ = load_oracle(oracle.folder, job.device)
    encoder = open_encoder(job, config.encoder)
    examples, n_without_text = fit_examples(
        REASONINGS.read(reasonings),
        phase.users,
        phase.starts,
        phase.targets(seen),
        lambda texts: encoder.encode_unique(texts, job.progress),
        lambda users, stops: (
            states_of(model, seen, users, stops),
            seen.until(users, stops, int(stops.max()))[0],
        ),
    )
    item_text = item_vectors(job, config.encoder, tables.items)
    items = ItemVectors(model.item_matrix(), model.bias, item_text)
    fitted = fit_recommender(config, examples, items, job.progress)
    if config.guard:
        require_signal(fitted.figures)
    save_recommender(job.draft.folder, fitted.model, fitted.figures)
    fitted.curve.drop("seconds").write_parquet(job.draft.path(CURVE_FILE), compression="zstd")
    job.draft.count(len(examples.targets), {"user without a usable reasoning": n_without_text})
    job.draft.tell(fitted.figures)
