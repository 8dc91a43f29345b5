"""The arguments that every Trainer of ours is given."""

import math
import os
from typing import TYPE_CHECKING, Any

from recalign.config import TrainingConfig
from recalign.errors import UserError
from recalign.seeding import derive_seed
from recalign.training.run import TrainingRun

if TYPE_CHECKING:  # seconds to import
    from transformers import TrainingArguments

WARM_UP = 0.1
"""Share of all steps in which the learning rate rises."""
LOG_LINES = 200
"""About so many lines in the Trainer's log."""


def require_even_batches(config: TrainingConfig, n_devices: int, stage: str) -> None:
    """UserError unless so many devices share a batch evenly: all compute what one would."""
    if config.batch_size % (config.micro_batch_size * n_devices):
        raise UserError(
            f"{stage}.micro_batch_size: {n_devices} devices (runtime.devices) take {n_devices} x"
            f" {config.micro_batch_size} rows at once, which does not divide"
            f" {stage}.batch_size {config.batch_size}"
        )


def recomputes_activations(device: str) -> bool:
    """Whether the backward pass computes activations anew: memory is scarce on a GPU, time here."""
    return device != "cpu"


def shared_arguments(config: TrainingConfig, run: TrainingRun, steps: int) -> dict[str, Any]:
    """Arguments of TRL's configurations, by name; `Schedule` decides when to evaluate and save.

    UserError as `require_even_batches`, for the processes of a launch.
    """
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    require_even_batches(config, n_processes, run.stage)
    return {
        "output_dir": str(run.work),
        "per_device_train_batch_size": config.micro_batch_size,
        "per_device_eval_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // (config.micro_batch_size * n_processes),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": warm_up_steps(steps),
        "bf16": config.precision == "bfloat16",
        "use_cpu": run.device == "cpu",
        "activation_checkpointing": recomputes_activations(run.device),
        "dataloader_pin_memory": run.device != "cpu",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_steps": max(1, steps // LOG_LINES),
        "router_aux_loss_coef": 0.0,
        "ddp_find_unused_parameters": False,  # what is trained takes part in every step
        "seed": derive_seed(config.seed, "trainer") % 2**31,
        "disable_tqdm": True,
        "report_to": run.report_to,
    }


def warm_up_steps(steps: int) -> int:
    """How many of `steps` raise the learning rate, the first of them from 0.

    None of fewer than ten: a first step at rate 0 would be too much of so short a training.
    """
    return math.ceil(WARM_UP * steps) if steps >= 1 / WARM_UP else 0


def without_data_parallel(arguments: "TrainingArguments") -> None:
    """Several visible GPUs are no wish for torch's DataParallel: a process trains on one."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
