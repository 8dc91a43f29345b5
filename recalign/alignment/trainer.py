"""TRL's DPOTrainer with its forward pass exchanged: pairs share their prompt, losses are ours.

What is overridden (and pinned by `tests/alignment/test_alignment_contract.py`): the preparation of
the data set, the signature columns, the precomputation of reference log-probabilities, the loss,
what is counted of an optimiser step, and what `OrderedTrainer` exchanges. Callbacks, checkpoints,
resume, PEFT, accelerate and the logging are the ordinary Trainer's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from recalign.alignment.forward import PackedCollator, completion_log_probs
from recalign.alignment.losses import Objective, Scores, preference_loss
from recalign.config import AlignmentConfig
from recalign.training.arguments import shared_arguments, without_data_parallel
from recalign.training.run import TrainingRun
from recalign.training.trainer import OrderedTrainer


class SharedPromptTrainer(OrderedTrainer, DPOTrainer):
    """TRL's trainer on rows that hold a prompt and its completions, and a loss of our own."""

    columns: Sequence[str]
    """Of the data set, as the collator takes them."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: DPOConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]],
    ) -> None:
        self.lengths = np.array(train_dataset["length"])
        # The reference is in columns. Said so, TRL hashes every weight; else, without an adapter
        # to switch off, it loads a second model.
        args.precompute_ref_log_probs = not isinstance(model, PeftModel)
        super().__init__(
            model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
        )
        if isinstance(model, PeftModel):
            model.delete_adapter("ref")  # TRL's copy of the adapter: our reference is in columns

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: Any, args: DPOConfig, dataset_name: str
    ) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = self.columns  # type: ignore[assignment]

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Any]:
        """The micro-batches of an optimiser step, whose rows and chosen tokens are counted."""
        batches, n_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [[len(one["lengths"]), int(one["lengths"][:, 0].sum())] for one in batches]
        own = torch.tensor(counts, device=device).sum(0, keepdim=True)
        n_rows, n_tokens = self.accelerator.gather(own).sum(0).tolist()
        parts = len(batches) * self.accelerator.num_processes  # over which the Trainer averages
        self.step_shares = parts / n_rows, parts / n_tokens
        return batches, n_items

    def _row_share(self, n_rows: int) -> float:
        """What one row weighs in the loss of a micro-batch.

        The loss of an optimiser step is the mean over its rows, that of the held-out rows over all
        of them (the Trainer weighs their batches by size): how many are in memory at once does not
        matter.
        """
        return self.step_shares[0] if cast(nn.Module, self.model).training else 1 / n_rows

    @torch.no_grad()
    def _note(self, figures: dict[str, Tensor], inputs: dict[str, Tensor]) -> None:
        """Log [B] values of the rows, so that their mean over batches is that over rows."""
        mode = "train" if cast(nn.Module, self.model).training else "eval"
        stacked = self.accelerator.gather_for_metrics(torch.stack(list(figures.values()), 1))
        for name, column in zip(figures, stacked.T.tolist(), strict=True):
            self._metrics[mode][name].extend(column)
        if mode == "train":
            n_tokens = self.accelerator.gather_for_metrics((inputs["segments"] >= 0).sum())
            self._total_train_tokens += int(n_tokens.sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


class SharedPromptDPOTrainer(SharedPromptTrainer):
    """DPO on rows [prompt | chosen | rejected_1 .. rejected_K] whose reference is in columns."""

    columns = (
        "prompt_ids",
        "chosen_ids",
        "rejected_ids",
        "ref_chosen_logps",
        "ref_rejected_logps",
        "eps",
    )

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: DPOConfig,
        objective: Objective,
        train_dataset: Dataset,
        eval_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.objective: Objective = objective
        self.held_out_tokens = float(np.mean([len(ids) for ids in eval_dataset["chosen_ids"]]))
        collator = PackedCollator(tokenizer.pad_token_id or 0)
        super().__init__(model, args, train_dataset, eval_dataset, tokenizer, collator)

    def _compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool
    ) -> Any:
        log_probs, n_tokens = completion_log_probs(model, inputs)
        scores = Scores(
            chosen=log_probs[:, 0],
            rejected=log_probs[:, 1:],
            reference_chosen=inputs["ref_chosen_logps"],
            reference_rejected=inputs["ref_rejected_logps"],
            chosen_tokens=n_tokens[:, 0],
            rejected_tokens=n_tokens[:, 1:],
            eps=inputs["eps"],
        )
        n_rows = len(log_probs)
        loss = self._row_share(n_rows) * preference_loss(self.objective, scores).sum()
        if self.objective.anchor:
            weight = self.objective.anchor * self._token_share(n_rows)
            loss = loss - weight * scores.chosen.sum()
        self._record(scores, inputs)
        return (loss, {"log_probs": log_probs}) if return_outputs else loss

    def _token_share(self, n_rows: int) -> float:
        """What one chosen token weighs: as a row, over the chosen tokens of a step, or of all."""
        training = cast(nn.Module, self.model).training
        return self.step_shares[1] if training else 1 / (n_rows * self.held_out_tokens)

    @torch.no_grad()
    def _record(self, scores: Scores, inputs: dict[str, Tensor]) -> None:
        """TRL's metrics, one value per pair."""
        chosen = self.objective.beta * scores.chosen_ratio
        rejected = self.objective.beta * scores.rejected_ratio
        figures = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected.mean(1),
            "rewards/accuracies": (chosen[:, None] > rejected).float().mean(1),
            "rewards/margins": chosen - rejected.mean(1),
            "logps/chosen": scores.chosen,
            "logps/rejected": scores.rejected.mean(1),
        }
        self._note(figures, inputs)


def trainer_arguments(config: AlignmentConfig, run: TrainingRun, steps: int) -> DPOConfig:
    """The Trainer's arguments; UserError as `shared_arguments`."""
    arguments = DPOConfig(beta=config.beta, **shared_arguments(config, run, steps))
    without_data_parallel(arguments)
    return arguments
