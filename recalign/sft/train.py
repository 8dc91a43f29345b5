"""Fine-tune an LLM on examples: all weights or LoRA, early stop on validation, resume."""

import hashlib
import json
from typing import TYPE_CHECKING

from recalign.config import SftConfig, WarmUpConfig
from recalign.errors import UserError
from recalign.policy import Policy
from recalign.sft.examples import Examples
from recalign.training.log_table import ending, log_table
from recalign.training.packing import IGNORED
from recalign.training.run import Trained, TrainingRun
from recalign.training.train import train

if TYPE_CHECKING:  # seconds to import
    from datasets import Dataset
    from trl import SFTConfig


ENTRIES = {  # columns of the curve, and what TRL calls them
    "loss": "loss",  # mean over trained tokens, nats
    "valid_loss": "eval_loss",  # mean over the tokens of the next titles, nats
    "valid_accuracy": "eval_mean_token_accuracy",  # share of these that are the most probable one
    "learning_rate": "learning_rate",
}


def train_sft(
    policy: Policy,
    fitted: Examples,
    valid: Examples,
    config: SftConfig | WarmUpConfig,
    run: TrainingRun,
) -> Trained:
    """Train on `fitted`; save the weights (or the adapter) with the lowest loss on `valid`.

    The loss is the mean negative log-likelihood of the tokens that are trained on. A run that was
    stopped ends with the same bits. Raises UserError when there is nothing to train or validate
    on, and when training diverges.
    """
    from recalign.sft.trainer import TitleSFTTrainer
    from recalign.training.adapters import trainable_policy
    from recalign.training.schedule import optimiser_steps

    for name, examples in (("training", fitted), ("validation", valid)):
        if not len(examples):
            raise UserError(
                f"{run.stage}: no {name} example fits into {run.stage}.max_length"
                f" {config.max_length}"
            )
    model = trainable_policy(policy.model, config, run)
    steps = optimiser_steps(len(fitted), config)
    arguments = _arguments(config, run, steps)

    def trainer() -> TitleSFTTrainer:
        return TitleSFTTrainer(
            model, arguments, _dataset(fitted), _dataset(valid), policy.tokenizer
        )

    history = train(run, config, model, arguments, _digest(fitted, valid, config), trainer)
    curve = log_table(history, ENTRIES)
    told, start, best = ending(history, curve, steps)
    figures = {
        "examples": len(fitted),
        "trained_tokens": fitted.n_trained,
        "valid_examples": len(valid),
        "parameters": model.num_parameters(),
        **told,
        "valid_loss_start": start["valid_loss"],
        "valid_loss": best["valid_loss"],
        "valid_accuracy": best["valid_accuracy"],
    }
    return Trained(model, figures, curve)


def _digest(fitted: Examples, valid: Examples, config: SftConfig | WarmUpConfig) -> str:
    """Tells this run's checkpoints from another's."""
    tokens = [fitted.ids, fitted.first, valid.ids, valid.first]
    return hashlib.sha256(json.dumps([config.identity(), tokens]).encode()).hexdigest()


def _dataset(examples: Examples) -> "Dataset":
    from datasets import Dataset

    labels = [
        [IGNORED] * first + ids[first:]
        for ids, first in zip(examples.ids, examples.first, strict=True)
    ]
    return Dataset.from_dict({"input_ids": examples.ids, "labels": labels})


def _arguments(config: SftConfig | WarmUpConfig, run: TrainingRun, steps: int) -> "SFTConfig":
    """The Trainer's arguments; UserError as `shared_arguments`."""
    from trl import SFTConfig

    from recalign.training.arguments import shared_arguments, without_data_parallel

    arguments = SFTConfig(
        max_length=None,  # what is longer was left out
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **shared_arguments(config, run, steps),
    )
    without_data_parallel(arguments)
    return arguments
