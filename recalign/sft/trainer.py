"""TRL's SFTTrainer on rows of ready token ids.

What is overridden (and pinned by `tests/sft/test_sft_trainer_contract.py`): the sampler, the
telemetry and, on a processor, the loss. Callbacks, checkpoints, resume, PEFT, accelerate and the
logging are the ordinary Trainer's.
"""

from typing import Any, cast

import numpy as np
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from recalign.training.adapters import base_model
from recalign.training.order import LengthGroupedOrder

IGNORED = -100


class TitleSFTTrainer(SFTTrainer):
    """SFT on the columns input_ids and labels (-100 where nothing is trained)."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: SFTConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.forwards = [(m, m.__dict__.get("forward")) for m in {base_model(model), model}]
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        lengths = np.array([len(ids) for ids in cast(Dataset, self.train_dataset)["input_ids"]])
        processes = self.args.world_size  # of a launch; they take the step's micro-batches in turn
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * processes
        return LengthGroupedOrder(lengths, step, self.args.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood of the labels, nats.

        On a processor the LM head runs only where a label is predicted, and once (TRL's fused head
        runs everywhere, and again in the backward pass); on a GPU the loss is TRL's.
        """
        if inputs["input_ids"].device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs["labels"][:, 1:]
        kept = functional.pad(targets != IGNORED, (0, 1))  # [B, L]
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=None,  # padding stands on the right, where nothing looks at it
            logits_to_keep=kept,
            use_cache=False,
        ).logits  # [number kept, vocabulary]
        wanted = targets[targets != IGNORED]
        summed = functional.cross_entropy(logits.float(), wanted, reduction="sum")
        mode = "train" if cast(nn.Module, self.model).training else "eval"
        right = (logits.detach().argmax(-1) == wanted).float().mean()
        self._metrics[mode]["mean_token_accuracy"].append(right.item())
        return summed / (len(wanted) if num_items_in_batch is None else num_items_in_batch)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No README beside every checkpoint."""

    def release(self) -> None:
        """Undo what TRL and accelerate did to the model's forward method."""
        for model, forward in self.forwards:
            model.__dict__.pop("_original_forward", None)
            model.__dict__.pop("forward", None)
            if forward is not None:
                model.__dict__["forward"] = forward
