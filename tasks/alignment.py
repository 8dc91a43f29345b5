"""Stage alignment: a policy learns from scored completions of its own; the result is a policy."""

import polars as pl

from recalign.alignment.preferences import Known
from recalign.alignment.reference import FILE, ReferenceLogProbs, reference_log_probs
from recalign.alignment.rows import encode_pairs
from recalign.alignment.train import align
from recalign.artifacts.artifact import Artifact
from recalign.config import AlignmentConfig
from recalign.llm.storage import trained_part
from recalign.report.content import Round
from recalign.report.plots import alignment_curves
from recalign.report.stage_page import picture
from recalign.schemas import COMPLETIONS
from recalign.training.log_table import LOG
from recalign.training.run import TrainingRun
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.models import first_of, open_policy


@stage(version=2, trains=True)
def alignment(
    job: Job,
    config: AlignmentConfig,
    start: Artifact,
    completions: Artifact,
    reference: Artifact | None = None,
    **earlier: Artifact,
) -> None:
    """Train `start`, any policy, on completions; early stop on those of held-out users.

    `completions` are a round's pairs of reasonings, to which `earlier` adds those of the rounds
    before, or smoothed pairs of titles, whose log-probabilities `reference` may hold.
    """
    table = pl.concat([COMPLETIONS.read(made) for made in [*earlier.values(), completions]])
    known: Known = config.reference
    if reference is not None:
        known = ReferenceLogProbs.load(reference.path(FILE))
    elif start.manifest.stage == "alignment":
        known = _initial(job, config, start, table)
    work, folder = job.draft.work / "training", job.draft.path(trained_part(config.method))
    run = TrainingRun("alignment", work, folder, job.progress, job.device)
    policy = open_policy(start, job.runtime.root, run.device, trainable=True)
    aligned = align(policy, table, config, run, known)
    if not job.leads:
        return
    aligned.log.write_parquet(job.draft.path(LOG), compression="zstd")
    job.draft.count(table.height, aligned.figures["left_out"])
    job.draft.tell(aligned.figures)


def _initial(job: Job, config: AlignmentConfig, start: Artifact, table: pl.DataFrame) -> Known:
    """After full fine-tuning the first policy is no longer inside the model: score with it first.

    With an adapter the first policy is the model with its adapter switched off.
    """
    if config.method == "lora" or config.reference == "previous":
        return config.reference
    kept = job.draft.work / FILE
    if not kept.exists():
        root = job.runtime.root
        policy = open_policy(first_of(start, root), root, job.device)
        rows = encode_pairs(table, policy, config.max_length)
        reference_log_probs(policy, rows, config, job.progress).save(kept)
    return ReferenceLogProbs.load(kept)


@alignment.shows
def curves_shown(made: Artifact) -> list[str]:
    """Loss, margin, pairs ranked right and drift by step."""
    curve = pl.read_parquet(made.path(LOG))
    return [picture(svg) for svg in alignment_curves([Round(1, curve=curve)])]
