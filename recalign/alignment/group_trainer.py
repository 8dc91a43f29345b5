"""Rows of a prompt and all its completions: their batches, and TRL's trainer on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import DPOConfig

from recalign.alignment.divergence import refuse_far
from recalign.alignment.forward import token_log_probs, tokens_present
from recalign.alignment.objective import GroupScores, group_figures, group_loss
from recalign.alignment.trainer import SharedPromptTrainer
from recalign.config import AlignmentConfig
from recalign.training.packing import PackedRow, pack


@dataclass(frozen=True)
class GroupCollator:
    """`Groups.records` -> the tensors of a `PackedBatch` by name, and what the rows carry.

    Carried along: `rewards` [B, S], `chosen` [B], and, if there, `reference` and `sampling`
    [B, S, L].
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        packed = [PackedRow(row["prompt_ids"], row["completion_ids"]) for row in rows]
        batch = dict(vars(pack(packed, self.pad_token_id)))
        batch["chosen"] = torch.tensor([row["chosen"] for row in rows])
        present = tokens_present(batch["lengths"])
        batch["rewards"] = _filled(batch["lengths"] > 0, [row["rewards"] for row in rows])
        for name in {"reference", "sampling"} & rows[0].keys():
            batch[name] = _filled(present, [row[name] for row in rows])
        return batch


def _filled(places: Tensor, values: Sequence[Sequence[float]]) -> Tensor:
    """float32 zeros with the rows' values, one after the other, where `places` is true."""
    flat = torch.tensor([one for row in values for one in row], dtype=torch.float32)
    return torch.zeros(places.shape).masked_scatter(places, flat)


class GroupTrainer(SharedPromptTrainer):
    """The optimisers that read all completions of a prompt."""

    columns = ("prompt_ids", "completion_ids", "rewards", "chosen", "reference", "sampling")

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: DPOConfig,
        config: AlignmentConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.config: AlignmentConfig = config
        both = [*train_dataset["completion_ids"], *eval_dataset["completion_ids"]]
        self.longest = max(len(one) for completions in both for one in completions)
        collator = GroupCollator(tokenizer.pad_token_id or 0)
        super().__init__(model, args, train_dataset, eval_dataset, tokenizer, collator)

    def _compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool
    ) -> Any:
        tokens = token_log_probs(model, inputs)
        unread = torch.zeros_like(tokens)
        scores = GroupScores(
            tokens=tokens,
            reference=inputs.get("reference", unread),
            sampling=inputs.get("sampling", unread),
            lengths=inputs["lengths"],
            rewards=inputs["rewards"],
            chosen=inputs["chosen"],
            longest=self.longest,
        )
        loss = self._row_share(len(tokens)) * group_loss(self.config, scores).sum()
        with torch.no_grad():
            self._note(group_figures(self.config, scores), inputs)
        return (loss, {"log_probs": tokens}) if return_outputs else loss


@dataclass
class KLLimit(TrainerCallback):
    """Stops a run whose policy leaves its reference."""

    most: float

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """FailedRoundError when held-out tokens are further from the reference than `most` nats."""
        kl = state.log_history[-1]["eval_kl"]
        refuse_far(kl, self.most, f"at step {state.global_step}")
