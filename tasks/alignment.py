"""Stage alignment: preference optimisation on pairs of texts or titles; the result is a policy."""

from typing import TYPE_CHECKING, Literal

import polars as pl

from recalign.alignment.reference import ReferenceLogProbs, reference_log_probs
from recalign.alignment.rows import encode_pairs
from recalign.alignment.train import align
from recalign.artifacts.artifact import Artifact
from recalign.config import AlignmentConfig
from recalign.report.content import Round
from recalign.report.plots import alignment_curves
from recalign.report.stage_page import picture
from recalign.schemas import PAIRS, PREFERENCES, read_table
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.policy import ADAPTER, MODEL, open_policy
from tasks.reference import REFERENCE
from tasks.sft import open_titles

if TYPE_CHECKING:
    from recalign.llm.load import Policy
    from recalign.titles.policy import TitlePolicy


@stage(version=2, trains=True)
def alignment(
    job: Job,
    config: AlignmentConfig,
    pairs: Artifact,
    policy: Artifact | None = None,
    sft: Artifact | None = None,
    previous: Artifact | None = None,
    reference: Artifact | None = None,
    **earlier: Artifact,
) -> None:
    """Align on chosen against rejected; early stop on held-out users' pairs.

    DPO4Rec gives a policy and a round's pairs of reasonings, perhaps those of earlier rounds and
    the policy of the round before; RosePO an SFT model, smoothed pairs of titles and the SFT
    model's log-probabilities of them.
    """
    known: ReferenceLogProbs | Literal["initial", "previous"] = config.reference
    if sft is not None:
        table = read_table(pairs.path("preferences.parquet"), PREFERENCES)
        if reference is not None:
            known = ReferenceLogProbs.load(reference.path(REFERENCE))
        current: Policy | TitlePolicy = open_titles(sft, None, job.device, trainable=True)
    elif policy is not None:
        tables = [read_table(a.path("pairs.parquet"), PAIRS) for a in [*earlier.values(), pairs]]
        table = pl.concat(tables)
        if previous is not None:
            known = _reference_of_policy_0(job, config, policy, table)
        current = open_policy(policy, previous, job.device, trainable=True)
    else:
        raise ValueError("alignment needs a policy or an SFT model")
    aligned = align(
        current.model, current.tokenizer, table, config,
        encode_prompt=current.encode_prompt, encode_completion=current.encode_completion,
        work=job.draft.work / "training",
        folder=job.draft.path(ADAPTER if config.method == "lora" else MODEL),
        reference=known, progress=job.progress, device=job.device,
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
