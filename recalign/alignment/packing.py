"""One row per pair, [prompt | chosen | rejected_1 .. rejected_K]: the prompt is computed once.

Each completion sees the prompt and itself (a 4-D attention mask) from the position where the
prompt ends, so its log-probability is that of [prompt | completion] alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PackedCollator:
    """Records (see `Rows.records`) -> one batch of tensors, padded on the right.

    With B rows of S = 1 + K completions, L columns and C tokens in the longest completion:
    `input_ids`, `position_ids` and `segments` [B, L] (segment 0 is the prompt, s + 1 completion s,
    -1 padding), `columns` [B, S, C] (where each completion token stands; -1 padding), and what the
    rows carry: `ref_chosen_logps` [B], `ref_rejected_logps` [B, K], `eps` [B, K].
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        packed = [[row["chosen_ids"], *row["rejected_ids"]] for row in rows]
        width = max(
            len(row["prompt_ids"]) + sum(map(len, c)) for row, c in zip(rows, packed, strict=True)
        )
        longest = max(len(ids) for completions in packed for ids in completions)
        shape = (len(rows), width)
        input_ids = torch.full(shape, self.pad_token_id)
        position_ids = torch.zeros(shape, dtype=torch.long)
        segments = torch.full(shape, -1)
        columns = torch.full((len(rows), len(packed[0]), longest), -1)
        for b, (row, completions) in enumerate(zip(rows, packed, strict=True)):
            start = 0
            prompt_length = len(row["prompt_ids"])
            for segment, ids in enumerate([row["prompt_ids"], *completions]):
                stop = start + len(ids)
                first = prompt_length if segment else 0
                input_ids[b, start:stop] = torch.tensor(ids)
                position_ids[b, start:stop] = torch.arange(first, first + len(ids))
                segments[b, start:stop] = segment
                if segment:
                    columns[b, segment - 1, : len(ids)] = torch.arange(start, stop)
                start = stop
        batch = {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "segments": segments,
            "columns": columns,
        }
        for name in ("ref_chosen_logps", "ref_rejected_logps", "eps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
        return batch


def attention_mask(segments: Tensor, implementation: str, dtype: torch.dtype) -> Tensor:
    """Who may look at whom, [B, 1, L, L]: the prompt and one's own completion, never ahead.

    Boolean for sdpa, added to the scores (0 or the lowest number of `dtype`) for eager attention.
    Padding looks at padding only, so that no row of the softmax is empty.
    """
    query, key = segments[:, :, None], segments[:, None, :]
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    mask = (((key == 0) & (query >= 0)) | (key == query)) & causal
    mask = mask[:, None]
    if implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def completion_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """log pi(completion | prompt), summed over its tokens (the end token too), and token counts.

    Returns float32 [B, S] and int64 [B, S]. The LM head runs only where a completion token is
    predicted: at the last prompt token and at each completion token but its last.
    """
    segments, columns = batch["segments"], batch["columns"]
    present = columns >= 0
    last_prompt = (segments == 0).sum(1) - 1
    sources = torch.where(present, columns - 1, 0)
    sources[:, :, 0] = last_prompt[:, None]
    kept = torch.zeros_like(segments, dtype=torch.bool)
    kept.scatter_(1, torch.where(present, sources, last_prompt[:, None, None]).flatten(1), True)
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
    rows = numbers.gather(1, sources.flatten(1)).view_as(columns)[present]
    targets = batch["input_ids"].gather(1, columns.clamp(min=0).flatten(1)).view_as(columns)
    tokens = logits.log_softmax(-1, dtype=torch.float32)[rows, targets[present]]
    summed = torch.zeros(columns.shape, device=tokens.device).masked_scatter(present, tokens)
    return summed.sum(-1), present.sum(-1)
