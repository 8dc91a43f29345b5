"""The optimiser "pairs": chosen against rejected by a preference loss, on TRL's trainer."""

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl

from recalign.alignment.losses import Objective
from recalign.alignment.reference import FILE, ReferenceLogProbs, reference_log_probs
from recalign.alignment.rows import Rows, encode_pairs, held_out, require_pairs
from recalign.config import AlignmentConfig
from recalign.errors import UserError
from recalign.policy import Policy
from recalign.training.log_table import ending, log_table
from recalign.training.run import Trained, TrainingRun
from recalign.training.train import train

if TYPE_CHECKING:  # seconds to import
    from datasets import Dataset
    from transformers import PreTrainedModel


KnownPairs = Literal["initial", "previous"] | ReferenceLogProbs

ENTRIES = {  # columns of the log, and what TRL calls them
    "loss": "loss",
    "margin": "rewards/margins",  # mean of beta h
    "accuracy": "rewards/accuracies",  # share of pairs with h > 0
    "chosen_log_prob": "logps/chosen",  # mean over pairs, summed over tokens, nats
    "rejected_log_prob": "logps/rejected",
    "chosen_drift": "rewards/chosen",  # mean log-probability above the reference's, times beta
    "rejected_drift": "rewards/rejected",
    "held_out_loss": "eval_loss",
    "held_out_margin": "eval_rewards/margins",
    "held_out_accuracy": "eval_rewards/accuracies",
    "held_out_chosen_drift": "eval_rewards/chosen",
    "held_out_rejected_drift": "eval_rewards/rejected",
    "learning_rate": "learning_rate",
}


def align_on_pairs(
    policy: Policy,
    completions: pl.DataFrame,
    config: AlignmentConfig,
    run: TrainingRun,
    reference: KnownPairs,
) -> Trained:
    """Train on chosen and rejected of every prompt; early stop on held-out users.

    Rows with an eps above config.drop_above are counted and left out of both.

    Given log-probabilities are those of the rows that `encode_pairs` makes of `completions`.
    Raises UserError when there are too few pairs, when the model cannot take packed rows, and when
    training diverges.
    """
    from recalign.alignment.support import check_packed_rows
    from recalign.alignment.trainer import SharedPromptDPOTrainer, trainer_arguments
    from recalign.training.adapters import trainable_policy
    from recalign.training.schedule import optimiser_steps

    rows = encode_pairs(completions, policy, config.max_length)
    require_pairs(rows, config.max_length)
    held = held_out(rows.users, config.held_out, config.seed)
    dropped = rows.eps.max(1, initial=0.0) > config.drop_above
    if dropped[held].all() or dropped[~held].all():
        raise UserError(
            f"alignment.drop_above = {config.drop_above} leaves no pair to train on, or none of a "
            f"held-out user: {int(dropped.sum())} of {len(rows)} have a larger eps; raise it"
        )
    model = trainable_policy(policy.model, config, run)
    policy = replace(policy, model=cast("PreTrainedModel", model))
    check_packed_rows(model, rows, policy.pad_id)
    objective = Objective(
        config.loss, config.beta, config.anchor, config.gamma, config.constant_eps
    )
    steps = optimiser_steps(int((~held & ~dropped).sum()), config)
    arguments = trainer_arguments(config, run, steps)

    def trainer() -> SharedPromptDPOTrainer:
        known = reference
        if not isinstance(known, ReferenceLogProbs):
            known = _reference(policy, rows, config, run, adapter=known == "previous")
        fitted, valid = (
            _dataset(rows, known, which) for which in (~held & ~dropped, held & ~dropped)
        )
        return SharedPromptDPOTrainer(model, arguments, objective, fitted, valid, policy.tokenizer)

    digest = _digest(rows, config, objective, reference)
    history = train(run, config, model, arguments, digest, trainer)
    drifts = pl.col("^.*_drift$") / config.beta
    log = log_table(history, ENTRIES).with_columns(drifts)
    counts = {
        "pairs": int((~dropped).sum()),
        "held_out_pairs": int((held & ~dropped).sum()),
        "n_rejected": rows.eps.shape[1],
        "left_out": rows.left_out | ({"eps_above": int(dropped.sum())} if dropped.any() else {}),
    }
    return Trained(model, counts | _figures(history, log, steps), log)


def _figures(history: list[dict[str, Any]], log: pl.DataFrame, steps: int) -> dict[str, Any]:
    """Held-out figures at the start and at the kept checkpoint, and how the run ended."""
    told, start, best = ending(history, log, steps)
    return told | {
        "held_out_loss_start": start["held_out_loss"],
        "held_out_loss": best["held_out_loss"],
        "held_out_accuracy": best["held_out_accuracy"],
        "held_out_margin": best["held_out_margin"],
        "chosen_drift": best["held_out_chosen_drift"],
        "rejected_drift": best["held_out_rejected_drift"],
    }


def _digest(
    rows: Rows, config: AlignmentConfig, objective: Objective, reference: KnownPairs
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
    policy: Policy, rows: Rows, config: AlignmentConfig, run: TrainingRun, *, adapter: bool
) -> ReferenceLogProbs:
    """The reference's log-probabilities, computed in this run or found in its work folder."""
    path = run.work / FILE
    if path.exists():
        return ReferenceLogProbs.load(path)
    found = reference_log_probs(policy, rows, config, run.progress, adapter=adapter, kept=path)
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
