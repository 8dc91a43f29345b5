"""The policy over packed rows: log-probabilities of all completions behind one prompt at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from recalign.training.packing import IGNORED, PackedRow, pack, visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PackedCollator:
    """Records (see `Rows.records`) -> the tensors of a `PackedBatch` by name, and what rows carry.

    Completion 1 is the chosen one, 2..1+K are the rejected; carried along: `ref_chosen_logps` [B],
    `ref_rejected_logps` [B, K], `eps` [B, K].
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        packed = pack(
            [PackedRow(row["prompt_ids"], [row["chosen_ids"], *row["rejected_ids"]])
             for row in rows],
            self.pad_token_id,
        )  # fmt: skip
        batch = dict(vars(packed))
        for name in ("ref_chosen_logps", "ref_rejected_logps", "eps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
        return batch


def attention_mask(segments: Tensor, implementation: str, dtype: torch.dtype) -> Tensor:
    """`visible`, [B, 1, T, T]: boolean for sdpa; for eager attention added to the scores.

    What is added is 0 or the lowest number of `dtype`.
    """
    mask = visible(segments)[:, None]
    if implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def completion_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """log pi(completion | prompt), summed over its tokens (the end token too), and token counts.

    Returns float32 [B, S] and int64 [B, S].
    """
    return token_log_probs(model, batch).sum(-1), batch["lengths"]


def token_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """log pi(token | prompt, tokens before it in its completion), 0 behind a completion's end.

    Returns float32 [B, S, L]. The LM head runs only where a completion token is predicted: at the
    last prompt token and at each completion token but its last.
    """
    segments, lengths = batch["segments"], batch["lengths"]
    wanted = batch["targets"] != IGNORED
    # What pads the predictors points at the last prompt token, which every completion has.
    predictors = torch.where(wanted, batch["predictors"], batch["predictors"][:, :1])
    kept = torch.zeros_like(segments, dtype=torch.bool).scatter_(1, predictors, True)
    inner = cast("PreTrainedModel", model.module if isinstance(model, DDP) else model)
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=attention_mask(
            segments, str(inner.config._attn_implementation), inner.dtype
        ),
        logits_to_keep=kept,
        use_cache=False,
    ).logits  # [number kept, vocabulary]
    numbers = kept.flatten().cumsum(0).view_as(kept) - 1
    rows = numbers.gather(1, predictors)[wanted]
    tokens = logits.log_softmax(-1, dtype=torch.float32)[rows, batch["targets"][wanted]]
    present = tokens_present(lengths)
    return torch.zeros(present.shape, device=tokens.device).masked_scatter(present, tokens)


def tokens_present(lengths: Tensor) -> Tensor:
    """True where a completion has a token, [B, S, L] of token counts [B, S]."""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, :, None]
