"""Stage alignment: a policy learns from scored completions of its own; the result is a policy."""

from typing import TYPE_CHECKING, Any

import polars as pl

from recalign.alignment.divergence import HIGHEST_KL, refuse_far, refuse_worse
from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Reference
from recalign.config import AlignmentConfig
from recalign.llm.storage import trained_part
from recalign.parquet import read_parquet
from recalign.policy import Policy
from recalign.report.content import Round
from recalign.report.plots import alignment_curves
from recalign.report.stage_page import picture
from recalign.schemas import COMPLETIONS
from recalign.stored import first_of, open_policy
from recalign.training.log_table import LOG
from recalign.training.run import TrainingRun
from tasks.engine.job import Job
from tasks.engine.stage import stage

if TYPE_CHECKING:
    from recalign.alignment.train import Known
    from tasks.engine.run import Run


@stage(version=3, trains=True)
def alignment(
    job: Job,
    config: AlignmentConfig,
    start: Artifact,
    completions: Artifact,
    reference: Artifact | None = None,
    **earlier: Artifact,
) -> None:
    """Train `start`, any policy, on completions; early stop on those of held-out users.

    `completions` are a round's reasonings with their rewards, to which `earlier` adds those of the
    rounds before, or titles, of whose smoothed pairs `reference` may hold the log-probabilities.
    """
    from recalign.alignment.reference import FILE, ReferenceLogProbs  # torch: seconds
    from recalign.alignment.train import align

    table = pl.concat([COMPLETIONS.read(made) for made in [*earlier.values(), completions]])
    known: Known = config.reference
    if reference is not None:
        known = ReferenceLogProbs.load(reference.path(FILE))
    elif start.manifest.stage == "alignment":
        known = _initial(job, config, start, table)
    elif start.manifest.stage == "sft":  # its own adapter is part of the first policy
        known = "previous"
    work, folder = job.draft.work / "training", job.draft.path(trained_part(config.method))
    run = TrainingRun(
        "alignment", work, folder, job.progress, job.device, report_to=job.runtime.report_to
    )
    policy = open_policy(start, job.runtime.root, run.device, trainable=True)
    aligned = align(policy, table, config, run, known)
    if not job.leads:
        return
    aligned.log.write_parquet(job.draft.path(LOG), compression="zstd")
    job.draft.count(table.height, aligned.figures["left_out"])
    job.draft.tell(aligned.figures)


def check_progress(run: "Run", made: Reference, config: AlignmentConfig) -> None:
    """UserError for a policy that got worse, or left its reference, where that is not allowed.

    The stage refuses it, too; but another run may have allowed it, whose artifact is reused.
    """

    def check(figures: dict[str, Any]) -> None:
        if not config.allow_worse:
            refuse_worse(figures, config, "alignment")
        kl = figures.get(HIGHEST_KL)  # earlier versions did not tell it
        if config.optimiser == "grpo" and kl is not None:
            refuse_far(kl, config.grpo.max_kl, "at its furthest")

    run.require(made, check)


def _initial(job: Job, config: AlignmentConfig, start: Artifact, table: pl.DataFrame) -> "Known":
    """After full fine-tuning the first policy is no longer inside the model: score with it first.

    With an adapter the first policy is the model with its adapter switched off.
    """
    from recalign.alignment.reference import FILE
    from recalign.alignment.train import score_reference

    unread = config.optimiser == "best_of_n"
    if unread or config.method == "lora" or config.reference == "previous":
        return config.reference
    root = job.runtime.root

    def first() -> Policy:
        return open_policy(first_of(start, root), root, job.device)

    return score_reference(first, table, config, job.draft.work / FILE, job.progress)


@alignment.shows
def curves_shown(made: Artifact) -> list[str]:
    """Loss, margin, pairs ranked right and drift by step."""
    curve = read_parquet(made.path(LOG))
    return [picture(svg) for svg in alignment_curves([Round(1, curve=curve)])]
