"""The optimisers that learn from all completions of a prompt at once, on TRL's trainer."""

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl

from recalign.alignment.groups import Groups, encode_groups
from recalign.alignment.reference import FILE, TokenLogProbs, token_log_probs_of
from recalign.alignment.rows import held_out
from recalign.config import AlignmentConfig
from recalign.errors import UserError
from recalign.training.log_table import ending, log_table
from recalign.training.run import Trained, TrainingRun
from recalign.training.train import train

if TYPE_CHECKING:  # seconds to import
    from datasets import Dataset
    from transformers import PreTrainedModel

    from recalign.alignment.group_trainer import GroupTrainer
    from recalign.policy import Policy

KnownTokens = Literal["initial", "previous"] | TokenLogProbs

ENTRIES = {  # columns of the log, and what `group_figures` calls them
    "loss": "loss",
    "accuracy": "accuracy",
    "chosen_log_prob": "log_prob/chosen",
    "chosen_drift": "drift/chosen",
    "rejected_drift": "drift/others",
    "held_out_loss": "eval_loss",
    "held_out_accuracy": "eval_accuracy",
    "held_out_chosen_drift": "eval_drift/chosen",
    "held_out_rejected_drift": "eval_drift/others",
    "learning_rate": "learning_rate",
}


def align_on_groups(
    policy: "Policy",
    completions: pl.DataFrame,
    config: AlignmentConfig,
    run: TrainingRun,
    reference: KnownTokens,
) -> Trained:
    """Train by `config.optimiser` on all completions of every prompt; early stop on held-out users.

    Given log-probabilities are those of the rows that `encode_groups` makes of `completions`.
    Raises UserError when too few prompts are left, when the model cannot take packed rows, when
    the work folder is another run's, and when training diverges.
    """
    from recalign.alignment.group_trainer import GroupTrainer
    from recalign.alignment.support import check_packed_rows
    from recalign.alignment.trainer import trainer_arguments
    from recalign.training.adapters import trainable_policy
    from recalign.training.schedule import optimiser_steps

    groups = encode_groups(completions, policy, config)
    _require_two_users(groups, config)
    held = held_out(groups.users, config.held_out, config.seed)
    model = trainable_policy(policy.model, config, run)
    policy = replace(policy, model=cast("PreTrainedModel", model))
    check_packed_rows(model, groups, policy.pad_id)
    steps = optimiser_steps(int((~held).sum()), config)
    arguments = trainer_arguments(config, run, steps)

    def trainer() -> "GroupTrainer":
        known = _reference(policy, groups, config, run, reference)
        fitted, valid = (_dataset(groups, known, which) for which in (~held, held))
        return GroupTrainer(model, arguments, config, fitted, valid, policy.tokenizer)

    digest = _digest(groups, config, reference)
    history = train(run, config, model, arguments, digest, trainer)
    log = log_table(history, ENTRIES)
    told, start, best = ending(history, log, steps)
    figures = {
        "prompts": len(groups),
        "held_out_prompts": int(held.sum()),
        "completions": sum(map(len, groups.completions)),
        "left_out": groups.left_out,
        "held_out_loss_start": start["held_out_loss"],
        **{name: best[name] for name in best if name.startswith("held_out_")},
    }
    return Trained(model, figures | told, log)


def _require_two_users(groups: Groups, config: AlignmentConfig) -> None:
    """UserError, with the reasons of the prompts that are left out, for fewer than two users."""
    if len(np.unique(groups.users)) >= 2:  # one trains, one is held out
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in groups.left_out.items() if n)
    raise UserError(
        f"alignment: optimiser {config.optimiser} can learn from {len(groups)} prompts only"
        f" (left out: {reasons or 'none'}): sample more texts, or choose another reward"
    )


def _reference(
    policy: "Policy",
    groups: Groups,
    config: AlignmentConfig,
    run: TrainingRun,
    known: KnownTokens,
) -> TokenLogProbs | None:
    """The reference's log-probabilities, given, computed in this run or found in its work folder.

    None where the optimiser has no reference.
    """
    if config.optimiser == "best_of_n":
        return None
    if isinstance(known, TokenLogProbs):
        return known
    path = run.work / FILE
    if path.exists():
        return TokenLogProbs.load(path)
    adapter = known == "previous"
    found = token_log_probs_of(policy, groups, config, run.progress, adapter=adapter)
    found.save(path)
    return found


def _digest(groups: Groups, config: AlignmentConfig, reference: KnownTokens) -> str:
    """Tells this run's checkpoints from another's."""
    digest = hashlib.sha256()
    tokens = groups.users.tolist(), groups.prompts, groups.completions, groups.rewards
    digest.update(json.dumps([config.identity(), tokens, groups.chosen]).encode())
    if isinstance(reference, TokenLogProbs):
        digest.update(b"".join(row.tobytes() for row in reference.rows))
    else:
        digest.update(reference.encode())
    return digest.hexdigest()


def _dataset(groups: Groups, reference: TokenLogProbs | None, which: np.ndarray) -> "Dataset":
    """The rows `which` [n] with their reference column, shortest first."""
    from datasets import Dataset

    if reference is not None and len(reference.rows) != len(groups):
        raise UserError(
            f"{len(reference.rows)} reference log-probabilities given for {len(groups)} prompts"
        )
    index = np.flatnonzero(which)
    index = index[groups.lengths[index].argsort(kind="stable")]
    lengths = groups.lengths[index].tolist()
    records: list[dict[str, Any]] = groups.records(index)
    for row, record, length in zip(index.tolist(), records, lengths, strict=True):
        record["length"] = length
        if reference is not None:
            record["reference"] = reference.rows[row].tolist()
    return Dataset.from_list(records)
