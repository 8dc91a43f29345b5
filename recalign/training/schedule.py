"""When a run is evaluated, saved and stopped: one callback of the ordinary Trainer."""

import math
import time
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recalign.config import TrainingConfig
from recalign.errors import FailedRoundError
from recalign.training.checkpoints import best_step, mark_complete, out_of_patience, prune
from recalign.training.run import TrainingRun

SAVE_SECONDS = 120.0
"""A kill loses about so much of a training, or `SAVE_SHARE` times what a checkpoint takes."""
SAVE_SHARE = 10


def evaluation_steps(total: int, evaluations: int) -> set[int]:
    """At most `evaluations` steps, evenly spread over 1..total, the last one always among them."""
    return {max(1, round(total * i / evaluations)) for i in range(1, evaluations + 1)}


def optimiser_steps(n_rows: int, config: TrainingConfig) -> int:
    """Optimiser steps of all epochs, as the Trainer counts them."""
    micro_batches = math.ceil(n_rows / config.micro_batch_size)
    return config.epochs * math.ceil(micro_batches * config.micro_batch_size / config.batch_size)


class Schedule(TrainerCallback):
    """Evaluates and saves at given steps, keeps the best and the last checkpoint, stops early.

    Between them it saves by the clock, where a log line is written anyway: the log of a resumed run
    is that of an undisturbed one. What it decides otherwise is read from the Trainer's log, which
    a checkpoint restores, so that a resumed run decides the same.
    """

    def __init__(self, config: TrainingConfig, n_rows: int, run: TrainingRun) -> None:
        self.steps = evaluation_steps(optimiser_steps(n_rows, config), config.evaluations)
        self.patience = config.patience
        self.run = run
        self.note = ""
        self.scored = 0
        self.saved = self.asked = time.monotonic()
        self.cost = 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a log line, an evaluation and a checkpoint."""
        if state.global_step in self.steps:
            control.should_log = control.should_evaluate = control.should_save = True
        elif control.should_log and self._due():
            control.should_save = True
        self.asked = time.monotonic()
        self.run.progress(state.global_step, state.max_steps, self.note)

    def _due(self) -> bool:
        """Whether to save by the clock: what one process says counts for all of a launch."""
        waited = time.monotonic() - self.saved
        return broadcast_object_list([waited >= max(SAVE_SECONDS, SAVE_SHARE * self.cost)])[0]

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Show that held-out rows are being scored: with a large LLM that takes minutes."""
        self.scored += 1
        n_batches = len(more["eval_dataloader"])
        note = f"steps; held-out rows: batch {self.scored} of {n_batches}"
        self.run.progress(state.global_step, state.max_steps, note)
        self.scored %= n_batches

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note the latest figures for whoever watches."""
        entry = state.log_history[-1]
        if "loss" in entry:
            self.note = f"loss {entry['loss']:.3f}"
            if "rewards/margins" in entry:
                self.note += f", margin {entry['rewards/margins']:.3f}"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop when patience is exhausted; FailedRoundError when the loss is no number any more."""
        loss = state.log_history[-1]["eval_loss"]
        if not math.isfinite(loss):
            raise FailedRoundError(
                f"{self.run.stage} diverged: held-out loss {loss} at step {state.global_step};"
                f" lower {self.run.stage}.learning_rate"
            )
        if out_of_patience(state.log_history, self.patience):
            control.should_training_stop = True
        self.asked = time.monotonic()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Declare the new checkpoint whole, and only then delete what is no longer needed."""
        PartialState().wait_for_everyone()  # each process of a launch writes a part
        if not state.is_world_process_zero:
            return
        mark_complete(self.run.work / f"checkpoint-{state.global_step}")
        prune(self.run.work, {best_step(state.log_history), state.global_step})
        self.saved = time.monotonic()
        self.cost = self.saved - self.asked
