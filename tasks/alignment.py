"""Stage alignment: DPO on the round's pairs; the result is a policy."""

from typing import Literal

import polars as pl

from recalign.alignment.reference import ReferenceLogProbs, reference_log_probs
from recalign.alignment.rows import encode_pairs
from recalign.alignment.train import align
from recalign.artifacts.store import Artifact
from recalign.config import AlignmentConfig
from recalign.report.content import Round
from recalign.report.plots import alignment_curves
from recalign.report.stage_page import picture
from recalign.schemas import PAIRS, read_table
from tasks.policy import ADAPTER, MODEL, open_policy
from tasks.stage import Job, stage


@stage(version=1, trains=True)
def alignment(
    job: Job,
    config: AlignmentConfig,
    policy: Artifact,
    pairs: Artifact,
    previous: Artifact | None = None,
    **earlier: Artifact,
) -> None:
    """Align on best against worst, anchored on the best; early stop on held-out users' pairs."""
    tables = [read_table(a.path("pairs.parquet"), PAIRS) for a in [*earlier.values(), pairs]]
    table = pl.concat(tables)
    reference = _reference_of_policy_0(job, config, policy, table) if previous else config.reference
    current = open_policy(policy, previous, job.device, trainable=True)
    aligned = align(
        current.model, current.tokenizer, table, config,
        encode_prompt=current.encode_prompt, encode_completion=current.encode_completion,
        work=job.draft.work / "training",
        folder=job.draft.path(ADAPTER if config.method == "lora" else MODEL),
        reference=reference, progress=job.progress, device=job.device,
    )  # fmt: skip
    if not job.leads:
        return
    aligned.log.write_parquet(job.draft.path("log.parquet"), compression="zstd")
    job.draft.count(table.height, aligned.figures["left_out"])
    job.draft.tell(aligned.figures)


def _reference_of_policy_0(
    job: Job, config: AlignmentConfig, policy: Artifact, table: pl.DataFrame
) -> ReferenceLogProbs | Literal["initial", "previous"]:
    """After full fine-tuning the first policy is no longer inside the model: score with it first.

    With an adapter the first policy is the model with its adapter switched off.
    """
    if config.method == "lora" or config.reference == "previous":
        return config.reference
    kept = job.draft.work / "reference.npz"
    if kept.exists():
        return ReferenceLogProbs.load(kept)
    first = open_policy(policy, None, job.device)
    rows = encode_pairs(table, first.encode_prompt, first.encode_completion, config.max_length)
    scored = reference_log_probs(
        first.model, rows, pad_token_id=first.tokenizer.pad_token_id or 0,
        batch_size=config.micro_batch_size, autocast=config.precision == "bfloat16",
        progress=job.progress,
    )  # fmt: skip
    scored.save(kept)
    return scored


@alignment.shows
def curves_shown(made: Artifact) -> list[str]:
    """Loss, margin, pairs ranked right and drift by step."""
    curve = pl.read_parquet(made.path("log.parquet"))
    return [picture(svg) for svg in alignment_curves([Round(1, curve=curve)])]
