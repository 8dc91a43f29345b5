"""One training of an LLM: claimed, scheduled, resumed, and its best weights saved."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recalign.config import TrainingConfig
from recalign.training.resume import claim, train_to_best
from recalign.training.run import TrainingRun

if TYPE_CHECKING:  # seconds to import
    from peft import PeftModel
    from transformers import PreTrainedModel, TrainingArguments

    from recalign.training.trainer import OrderedTrainer


def train(
    run: TrainingRun,
    config: TrainingConfig,
    model: "PreTrainedModel | PeftModel",
    arguments: "TrainingArguments",
    digest: str,
    trainer_of: "Callable[[], OrderedTrainer]",
) -> list[dict[str, Any]]:
    """Train `model`, load and save the weights of the lowest held-out loss; the Trainer's log.

    `digest` tells this run's checkpoints from another's. `trainer_of` makes the Trainer, once the
    work folder is this run's. UserError when training diverges.
    """
    from recalign.training.adapters import attention, save_policy
    from recalign.training.schedule import Schedule

    with arguments.main_process_first(local=False):
        claim(run.work, digest, run.stage)
    with attention(model, config.precision):
        trainer = trainer_of()
        for callback in (Schedule(config, trainer.n_rows, run), *run.callbacks):
            trainer.add_callback(callback)
        try:
            history = train_to_best(trainer, run.work, config.patience, run.stage)
        finally:
            trainer.release()
    if arguments.process_index == 0:
        save_policy(model, trainer.tokenizer, run.folder)
    model.eval()
    return history
