"""What our Trainers share over TRL's: the order of rows, no telemetry, the model left clean."""

from typing import Any, cast

import numpy as np
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer

from recalign.training.adapters import base_model
from recalign.training.order import LengthGroupedOrder


class OrderedTrainer(Trainer):
    """To be named before TRL's class; `lengths` [n] are the tokens of the training rows."""

    lengths: np.ndarray

    def __init__(self, model: PreTrainedModel | PeftModel, **given: Any) -> None:
        self.forwards = [(m, m.__dict__.get("forward")) for m in {base_model(model), model}]
        trained = [(one, one.data) for one in model.parameters() if one.requires_grad]
        super().__init__(model=model, **given)
        for parameter, data in trained:  # TRL rounds those of a quantised LLM to bfloat16, in which
            if parameter.dtype != data.dtype:  # steps as small as a learning rate are rounded away
                parameter.data = data.to(parameter.device)
        self.remove_callback(PrinterCallback)

    @property
    def n_rows(self) -> int:
        """Number of training rows."""
        return len(self.lengths)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return cast(PreTrainedTokenizerBase, self.processing_class)

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        processes = self.args.world_size  # of a launch; they take the step's micro-batches in turn
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * processes
        return LengthGroupedOrder(self.lengths, step, self.args.seed)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No README beside every checkpoint."""

    def release(self) -> None:
        """Undo what TRL and accelerate did to the model's forward method."""
        for model, forward in self.forwards:
            model.__dict__.pop("_original_forward", None)
            model.__dict__.pop("forward", None)
            if forward is not None:
                model.__dict__["forward"] = forward
