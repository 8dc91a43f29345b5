"""Fine-tune an LLM on examples: all weights or LoRA, early stop on validation, resume."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from recalign.config import SftConfig
from recalign.errors import UserError
from recalign.progress import Progress, silent
from recalign.sft.curve import curve_table, figures
from recalign.sft.examples import Examples
from recalign.training.arguments import shared_arguments, without_data_parallel
from recalign.training.resume import claim, train_to_best

if TYPE_CHECKING:  # seconds to import
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig

IGNORED = -100


@dataclass(frozen=True)
class Tuned:
    """What `train_sft` returns."""

    model: "PreTrainedModel | PeftModel"
    """The model that was given, trained in place, best weights loaded."""
    figures: dict[str, Any]
    curve: pl.DataFrame
    """Columns of `recalign.sft.curve.CURVE`."""


def train_sft(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    train: Examples,
    valid: Examples,
    config: SftConfig,
    *,
    work: Path,
    folder: Path,
    progress: Progress = silent,
    device: str = "cpu",
    callbacks: "tuple[TrainerCallback, ...]" = (),
) -> Tuned:
    """Train `model` on `train`; save the weights (or the adapter) with the lowest loss on `valid`.

    The loss is the mean negative log-likelihood of the tokens that are trained on. `work` belongs
    to this call alone: a call that finds an interrupted run's checkpoints there continues it, and
    ends with the same bits. `folder` gets the result. Raises UserError when there is nothing to
    train or validate on, when `work` is another run's, and when training diverges.
    """
    from recalign.sft.trainer import TitleSFTTrainer
    from recalign.training.adapters import attention, save_policy, trainable_policy
    from recalign.training.schedule import Schedule, evaluation_steps, optimiser_steps

    for name, examples in (("training", train), ("validation", valid)):
        if not len(examples):
            raise UserError(f"sft: no {name} example fits into sft.max_length {config.max_length}")
    policy = trainable_policy(model, config, "sft")
    if policy.device.type != device:
        cast(Any, policy).to(device)
    steps = optimiser_steps(len(train), config)
    arguments = _arguments(config, work, device, steps)
    with arguments.main_process_first(local=False):
        claim(work, _digest(train, valid, config), "sft")
    # torch's fused attention has a slow bfloat16 backward pass on a processor.
    coarse = config.precision == "bfloat16"
    with attention(policy, "eager" if coarse and device == "cpu" else None):
        trainer = TitleSFTTrainer(
            policy,
            arguments,
            _dataset(train),
            _dataset(valid),
            tokenizer,
            [
                Schedule(
                    evaluation_steps(steps, config.evaluations), config.patience, work, progress,
                    "sft",
                ),
                *callbacks,
            ],
        )  # fmt: skip
        try:
            history = train_to_best(trainer, work, config.patience, "sft")
        finally:
            trainer.release()
    if arguments.process_index == 0:
        save_policy(policy, tokenizer, folder)
    curve = curve_table(history)
    counts = {
        "examples": len(train),
        "trained_tokens": train.n_trained,
        "valid_examples": len(valid),
        "parameters": policy.num_parameters(),
    }
    return Tuned(policy.eval(), counts | figures(history, curve, steps), curve)


def _digest(train: Examples, valid: Examples, config: SftConfig) -> str:
    """Tells this run's checkpoints from another's."""
    tokens = [train.ids, train.first, valid.ids, valid.first]
    return hashlib.sha256(json.dumps([config.identity(), tokens]).encode()).hexdigest()


def _dataset(examples: Examples) -> "Dataset":
    from datasets import Dataset

    labels = [
        [IGNORED] * first + ids[first:]
        for ids, first in zip(examples.ids, examples.first, strict=True)
    ]
    return Dataset.from_dict({"input_ids": examples.ids, "labels": labels})


def _arguments(config: SftConfig, work: Path, device: str, steps: int) -> "SFTConfig":
    """The Trainer's arguments; UserError as `shared_arguments`."""
    from trl import SFTConfig

    arguments = SFTConfig(
        max_length=None,  # what is longer was left out
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **shared_arguments(config, work, device, steps, "sft"),
    )
    without_data_parallel(arguments)
    return arguments
