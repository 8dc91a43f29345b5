"""The optimisers that learn from all completions of a prompt at once, on TRL's trainer."""

import hashlib
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl

from recalign.alignment.divergence import HIGHEST_KL, REWARD_STD
from recalign.alignment.groups import Groups, by_rank, encode_groups
from recalign.alignment.reference import FILE, TokenLogProbs, token_log_probs_of
from recalign.alignment.rows import held_out, reasons, tell_too_long
from recalign.config import AlignmentConfig
from recalign.errors import FailedRoundError, UserError
from recalign.policy import Policy
from recalign.training.log_table import ending, log_table
from recalign.training.run import Trained, TrainingRun
from recalign.training.train import train

if TYPE_CHECKING:  # seconds to import
    from datasets import Dataset
    from transformers import PreTrainedModel

    from recalign.alignment.group_trainer import GroupTrainer

logger = logging.getLogger(__name__)

SAMPLING = "sampling.npz"  # log-probabilities under the policy that wrote the completions
KnownTokens = Literal["initial", "previous"] | TokenLogProbs

ENTRIES = {  # columns of the log, and what `group_figures` calls them
    "loss": "loss",
    "accuracy": "accuracy",
    "chosen_log_prob": "log_prob/chosen",
    "chosen_drift": "drift/chosen",
    "rejected_drift": "drift/others",
    "kl": "kl",  # mean over tokens, nats
    "clipped": "clipped",  # share of tokens
    "reward_gain": "reward_gain",  # above the policy that wrote the completions
    "held_out_loss": "eval_loss",
    "held_out_accuracy": "eval_accuracy",
    "held_out_chosen_drift": "eval_drift/chosen",
    "held_out_rejected_drift": "eval_drift/others",
    "held_out_kl": "eval_kl",
    "held_out_clipped": "eval_clipped",
    "held_out_reward_gain": "eval_reward_gain",
    "learning_rate": "learning_rate",
}


def align_on_groups(
    policy: Policy,
    completions: pl.DataFrame,
    config: AlignmentConfig,
    run: TrainingRun,
    reference: KnownTokens,
) -> Trained:
    """Train by `config.optimiser` on all completions of every prompt; early stop on held-out users.

    Given log-probabilities are those of the rows that `encode_groups` makes of `completions`.
    Raises UserError when too few prompts are left, when the model cannot take packed rows, and
    when training diverges.
    """
    from recalign.alignment.group_trainer import GroupTrainer, KLLimit
    from recalign.alignment.support import check_packed_rows
    from recalign.alignment.trainer import trainer_arguments
    from recalign.training.adapters import trainable_policy
    from recalign.training.schedule import optimiser_steps

    groups = encode_groups(completions, policy, config)
    _require_two_users(groups, config)
    held = held_out(groups.users, config.held_out, config.seed)
    if reference == "initial" and not hasattr(policy.model, "peft_config"):
        reference = "previous"  # the same weights, which are scored once then
    model = trainable_policy(policy.model, config, run)
    policy = replace(policy, model=cast("PreTrainedModel", model))
    check_packed_rows(model, groups, policy.pad_id)
    steps = optimiser_steps(int((~held).sum()), config)
    arguments = trainer_arguments(config, run, steps)

    def trainer() -> "GroupTrainer":
        known = _known(policy, groups, config, run, reference)
        fitted, valid = (_dataset(groups, known, config, which) for which in (~held, held))
        return GroupTrainer(model, arguments, config, fitted, valid, policy.tokenizer)

    if config.optimiser == "grpo":
        run = replace(run, callbacks=(*run.callbacks, KLLimit(config.grpo.max_kl)))
    digest = _digest(groups, config, reference)
    history = train(run, config, model, arguments, digest, trainer)
    log = log_table(history, ENTRIES)
    counts: dict[str, Any] = {
        "prompts": len(groups),
        "held_out_prompts": int(held.sum()),
        "completions": sum(map(len, groups.completions)),
        "left_out": groups.left_out,
    }
    if config.optimiser == "grpo" and config.grpo.scale == "none":
        counts[REWARD_STD] = float(np.mean([np.std(one, ddof=1) for one in groups.rewards]))
    return Trained(model, counts | _figures(history, log, steps), log)


def _figures(history: list[dict[str, Any]], log: pl.DataFrame, steps: int) -> dict[str, Any]:
    """Held-out figures at the start and at the kept checkpoint, and how the run ended."""
    told, start, best = ending(history, log, steps)
    gain = best["held_out_reward_gain"]
    if gain is not None and gain < 0:
        logger.warning(
            "at its best step the policy would earn %.4g less on held-out users than the"
            " one that wrote the samples: lower alignment.learning_rate, or look at the rewards",
            -gain,
        )
    held_out_figures = {name: best[name] for name in best if name.startswith("held_out_")}
    known = {"held_out_loss_start": start["held_out_loss"], HIGHEST_KL: log["held_out_kl"].max()}
    return told | known | held_out_figures


def _require_two_users(groups: Groups, config: AlignmentConfig) -> None:
    """FailedRoundError, with the reasons for prompts left out, for fewer than two users."""
    tell_too_long(len(groups), groups.left_out, config.max_length)
    if len(np.unique(groups.users)) >= 2:  # one trains, one is held out
        return
    raise FailedRoundError(
        f"alignment: optimiser {config.optimiser} can learn from {len(groups)} prompts only"
        f" (left out: {reasons(groups.left_out)}): sample more texts, lower"
        " alignment.min_advantage or pairs.min_margin where they are set, raise"
        f" alignment.max_length (now {config.max_length} tokens), or choose another reward"
    )


def _known(
    policy: Policy,
    groups: Groups,
    config: AlignmentConfig,
    run: TrainingRun,
    reference: KnownTokens,
) -> dict[str, TokenLogProbs]:
    """Log-probabilities by the name of their column: those that the optimiser reads.

    They are given, computed before the first step, or found in the run's work folder.
    """

    def scored(file: str, *, adapter: bool) -> TokenLogProbs:
        path = run.work / file
        if not path.exists():
            made = token_log_probs_of(
                policy, groups, config, run.progress, adapter=adapter, kept=path
            )
            made.save(path)
        return TokenLogProbs.load(path)

    if config.optimiser == "best_of_n":
        return {}
    if isinstance(reference, TokenLogProbs):
        known = {"reference": reference}
    else:
        known = {"reference": scored(FILE, adapter=reference == "previous")}
    if config.optimiser == "grpo":
        same = reference == "previous"
        known["sampling"] = known["reference"] if same else scored(SAMPLING, adapter=True)
    return known


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


def _dataset(
    groups: Groups, known: dict[str, TokenLogProbs], config: AlignmentConfig, which: np.ndarray
) -> "Dataset":
    """The rows `which` [n] with the columns `known`, shortest first."""
    from datasets import Dataset

    for found in known.values():
        if len(found.rows) != len(groups):
            raise UserError(
                f"{len(found.rows)} reference log-probabilities given for {len(groups)} prompts"
            )
    index = np.flatnonzero(which)
    index = index[groups.lengths[index].argsort(kind="stable")]
    lengths = groups.lengths[index].tolist()
    records: list[dict[str, Any]] = groups.records(index)
    for row, record, length in zip(index.tolist(), records, lengths, strict=True):
        record["length"] = length
        record |= {name: found.rows[row].tolist() for name, found in known.items()}
        if groups.titles and config.optimiser == "grpo" and config.grpo.title_reward == "rank":
            ends = np.cumsum([len(one) for one in groups.completions[row]])
            log_probs = [part.sum() for part in np.split(known["sampling"].rows[row], ends[:-1])]
            record["rewards"] = by_rank(log_probs, groups.chosen[row])
    return Dataset.from_list(records)
