"""TRL's SFTTrainer on rows of ready token ids.

What is overridden (and pinned by `tests/sft/test_sft_trainer_contract.py`): what `OrderedTrainer`
exchanges, the loss and that it is a mean over an optimiser step. Callbacks, checkpoints, resume,
PEFT, accelerate and the logging are the ordinary Trainer's.
"""

from typing import Any, cast

import numpy as np
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from recalign.training.packing import IGNORED
from recalign.training.trainer import OrderedTrainer


class TitleSFTTrainer(OrderedTrainer, SFTTrainer):
    """SFT on the columns input_ids and labels (-100 where nothing is trained)."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: SFTConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.lengths = np.array([len(ids) for ids in train_dataset["input_ids"]])
        counts = [sum(label != IGNORED for label in row[1:]) for row in eval_dataset["labels"]]
        self.held_out_tokens = float(np.mean(counts))  # labels of a held-out row
        super().__init__(
            model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
        )
        # Whatever the model does: the loss below is over the labels of a whole optimiser step,
        # which the Trainer counts only where this is said.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood of the labels, nats; of held-out rows, over all of them.

        transformers averages held-out batches by their rows: each batch tells its sum over what its
        rows hold on average, so that the mean is over tokens, however rows are batched.
        The LM head runs only where a label is predicted, and once (TRL's fused head runs again in
        the backward pass, and on a GPU it wants Triton, hence a C compiler).
        """
        targets = inputs["labels"][:, 1:]
        mode = "train" if cast(nn.Module, self.model).training else "eval"
        kept = functional.pad(targets != IGNORED, (0, 1))  # [B, L]
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=None,  # padding stands on the right, where nothing looks at it
            logits_to_keep=kept,
            use_cache=False,
        ).logits  # [number kept, vocabulary]
        wanted = targets[targets != IGNORED]
        summed = functional.cross_entropy(logits.float(), wanted, reduction="sum")
        right = (logits.detach().argmax(-1) == wanted).float()
        self._metrics[mode]["mean_token_accuracy"].extend(right.tolist())
        if mode == "eval":
            return summed / (len(targets) * self.held_out_tokens)
        if num_items_in_batch is None:
            return summed / len(wanted)
        # It counts the tokens of all processes of a launch, over which the gradient is averaged.
        return summed * self.accelerator.num_processes / num_items_in_batch
