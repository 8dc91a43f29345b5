"""Align a policy on preference pairs: LoRA or full, early stop on held-out users, resume."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl

from recalign.alignment.log_table import figures, log_table
from recalign.alignment.losses import Objective
from recalign.alignment.reference import ReferenceLogProbs, reference_log_probs
from recalign.alignment.rows import Encode, Rows, encode_pairs, held_out
from recalign.config import AlignmentConfig
from recalign.errors import UserError
from recalign.progress import Progress, silent
from recalign.training.arguments import shared_arguments, without_data_parallel
from recalign.training.resume import claim, train_to_best

if TYPE_CHECKING:  # seconds to import
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import DPOConfig


@dataclass(frozen=True)
class Alignment:
    """What `align` returns."""

    model: "PreTrainedModel | PeftModel"
    """The aligned policy: the model that was given, trained in place, best weights loaded."""
    figures: dict[str, Any]
    log: pl.DataFrame
    """Columns of `recalign.alignment.log_table.LOG`."""


def align(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: pl.DataFrame,
    config: AlignmentConfig,
    *,
    encode_prompt: Encode,
    encode_completion: Encode,
    work: Path,
    folder: Path,
    reference: Literal["initial", "previous"] | ReferenceLogProbs = "initial",
    progress: Progress = silent,
    device: str = "cpu",
    callbacks: "tuple[TrainerCallback, ...]" = (),
) -> Alignment:
    """Train `model` on `pairs`; save the adapter (or all weights) with the lowest held-out loss.

    `pairs` is the PAIRS table; `rejected` may be lists of K texts, `smoothing` gives rosepo, cdpo
    and rdpo their eps. `reference` is "initial" (a PEFT model with its adapter off; a plain model
    as given), "previous" (the weights as given), or log-probabilities of the rows that
    `encode_pairs` makes of `pairs`. `work` belongs to this call alone: a call that finds an
    interrupted run's checkpoints there continues it. `folder` gets the result. Raises UserError
    when there are too few pairs, when the model cannot take packed rows, when `work` is another
    run's, and when training diverges.
    """
    from recalign.alignment.support import check_packed_rows
    from recalign.alignment.trainer import SharedPromptDPOTrainer
    from recalign.training.adapters import attention, save_policy, trainable_policy
    from recalign.training.schedule import Schedule, evaluation_steps, optimiser_steps

    rows = encode_pairs(pairs, encode_prompt, encode_completion, config.max_length)
    held = held_out(rows.users, config.held_out, config.seed)
    pad_token_id = tokenizer.pad_token_id or 0
    policy = trainable_policy(model, config, "alignment")
    if policy.device.type != device:
        cast(Any, policy).to(device)
    check_packed_rows(policy, rows, pad_token_id)
    objective = Objective(config.loss, config.beta, config.anchor, config.gamma)
    steps = optimiser_steps(int((~held).sum()), config)
    arguments = _arguments(config, work, device, steps)
    with arguments.main_process_first(local=False):
        claim(work, _digest(rows, config, objective, reference), "alignment")
    # torch's fused attention has a slow bfloat16 backward pass on a processor.
    coarse = config.precision == "bfloat16"
    with attention(policy, "eager" if coarse and device == "cpu" else None):
        if not isinstance(reference, ReferenceLogProbs):
            reference = _reference(policy, rows, config, reference, pad_token_id, work, progress)
        trainer = SharedPromptDPOTrainer(
            policy,
            arguments,
            objective,
            _dataset(rows, reference, ~held),
            _dataset(rows, reference, held),
            tokenizer,
            [
                Schedule(
                    evaluation_steps(steps, config.evaluations),
                    config.patience,
                    work,
                    progress,
                    "alignment",
                )
            ],
        )
        for callback in callbacks:
            trainer.add_callback(callback)
        try:
            history = train_to_best(trainer, work, config.patience, "alignment")
        finally:
            trainer.release()
    if arguments.process_index == 0:
        save_policy(policy, tokenizer, folder)
    log = log_table(history, config.beta)
    counts = {
        "pairs": len(rows),
        "held_out_pairs": int(held.sum()),
        "n_rejected": rows.eps.shape[1],
        "left_out": rows.left_out,
    }
    return Alignment(policy.eval(), counts | figures(history, log, steps), log)


def _digest(
    rows: Rows,
    config: AlignmentConfig,
    objective: Objective,
    reference: str | ReferenceLogProbs,
) -> str:
    """Tells this run's checkpoints from another's."""
    digest = hashlib.sha256()
    tokens = rows.users.tolist(), rows.prompts, rows.chosen, rows.rejected, rows.eps.tolist()
    digest.update(json.dumps([config.identity(), asdict(objective), tokens]).encode())
    if isinstance(reference, ReferenceLogProbs):
        digest.update(reference.chosen.tobytes() + reference.rejected.tobytes())
    else:
        digest.update(reference.encode())
    return digest.hexdigest()


def _reference(
    policy: "PreTrainedModel | PeftModel",
    rows: Rows,
    config: AlignmentConfig,
    which: Literal["initial", "previous"],
    pad_token_id: int,
    work: Path,
    progress: Progress,
) -> ReferenceLogProbs:
    """The reference's log-probabilities, computed in this run or found in `work`."""
    path = work / "reference.npz"
    if path.exists():
        return ReferenceLogProbs.load(path)
    found = reference_log_probs(
        policy,
        rows,
        adapter=which == "previous",
        pad_token_id=pad_token_id,
        batch_size=config.micro_batch_size,
        autocast=config.precision == "bfloat16",
        progress=progress,
    )
    found.save(path)
    return found


def _dataset(rows: Rows, reference: ReferenceLogProbs, which: np.ndarray) -> "Dataset":
    """The rows `which` [n] with their reference columns, shortest first."""
    from datasets import Dataset

    if len(reference.chosen) != len(rows):
        raise UserError(
            f"{len(reference.chosen)} reference log-probabilities given for {len(rows)} pairs"
        )
    index = np.flatnonzero(which)
    index = index[rows.lengths[index].argsort(kind="stable")]
    references = {
        "length": rows.lengths[index],
        "ref_chosen_logps": reference.chosen[index],
        "ref_rejected_logps": list(reference.rejected[index]),
    }
    columns = pl.DataFrame(references).to_dicts()
    return Dataset.from_list(
        [row | more for row, more in zip(rows.records(index), columns, strict=True)]
    )


def _arguments(config: AlignmentConfig, work: Path, device: str, steps: int) -> "DPOConfig":
    """The Trainer's arguments; UserError as `shared_arguments`."""
    from trl import DPOConfig

    shared = shared_arguments(config, work, device, steps, "alignment")
    arguments = DPOConfig(beta=config.beta, **shared)
    without_data_parallel(arguments)
    return arguments
