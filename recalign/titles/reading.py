"""Prompts read once, and whatever may follow them packed into one row (a 4-D attention mask)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recalign.errors import UserError
from recalign.policy import Policy

if TYPE_CHECKING:  # transformers: seconds, for every process that only loads the flows
    from transformers import PreTrainedModel


class Reading:
    """A batch of prompts in a model's memory, to be continued in many directions at once.

    `first` float32 [B, V]: logits of the token after each prompt. Tokens fed later stand side by
    side in one row behind their prompt; each sees the prompt and the fed tokens it is told to see.
    Without `continued` nothing is kept to continue from.

    Raises UserError when the prompts and `longest` more tokens do not fit the model, or when the
    model does not take free masks (flash attention, recurrent layers, a shorter sliding window).
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Sequence[int]],
        longest: int,
        *,
        continued: bool,
    ) -> None:
        from transformers import DynamicCache

        self.model = model = policy.model
        sizes = [len(prompt) for prompt in prompts]
        if not min(sizes):
            raise ValueError("an empty prompt: there is nothing to predict from")
        width = max(sizes)
        check_room(model, width + longest, continued)
        tokens = torch.full((len(prompts), width), policy.pad_id)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.as_tensor(prompt)
        self.lengths = torch.tensor(sizes, device=model.device)
        columns = torch.arange(width, device=model.device)
        self.inside = columns < self.lengths[:, None]
        self.cache = DynamicCache() if continued else None
        self.n_fed = 0
        # Padding stands on the right, where causal attention never looks: no mask is needed.
        tokens, positions = tokens.to(model.device), columns.expand(len(prompts), -1)
        first = self._forward(tokens, positions, None, self.lengths[:, None] - 1)[:, 0]
        self.first = first.float()

    def extend(self, tokens: Tensor, depths: Tensor, sees: Tensor) -> Tensor:
        """Feed F more tokens behind each prompt; logits of what follows each, [B, F, V].

        tokens and depths int64 [B, F], depth 0 directly after the prompt; sees bool [B, F, E + F]:
        which of the E tokens fed before and of these each may look at (itself among them). The
        logits are in the model's own precision: there may be many.
        """
        prompt = self.inside[:, None].expand(-1, tokens.shape[1], -1)
        mask = torch.cat([prompt, sees], 2)[:, None]
        if self.model.config.get_text_config()._attn_implementation == "eager":
            lowest = torch.finfo(self.model.dtype).min
            mask = torch.zeros_like(mask, dtype=self.model.dtype).masked_fill(~mask, lowest)
        self.n_fed += tokens.shape[1]
        return self._forward(tokens, self.lengths[:, None] + depths, mask, 0)

    def require_room(self, longest: int) -> None:
        """UserError when the prompts and so many more tokens do not fit the model."""
        check_room(self.model, self.inside.shape[1] + longest, self.cache is not None)

    def forget(self) -> None:
        """Back to the prompts alone."""
        if self.cache is not None and self.n_fed:
            self.cache.crop(-self.n_fed)
        self.n_fed = 0

    @torch.no_grad()
    def _forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, kept: int | Tensor
    ) -> Tensor:
        return self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=self.cache is not None,
            logits_to_keep=kept,
        ).logits


def check_room(model: "PreTrainedModel", width: int, continued: bool) -> None:
    """UserError when a prompt and what follows, `width` tokens, do not fit; see `Reading`."""
    config, name = model.config.get_text_config(), type(model).__name__  # its limits, not an eye's
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and width > limit:
        raise UserError(
            f"a prompt and its answer need {width} tokens, {name} takes {limit}: show fewer items "
            "(sft.history_items) or candidates"
        )
    if not continued:
        return
    if config._attn_implementation not in ("sdpa", "eager"):
        raise UserError(
            f"titles are scored with free attention masks, {name} runs "
            f"{config._attn_implementation!r}: load it with attn_implementation='sdpa'"
        )
    window = getattr(config, "sliding_window", None)
    by_default = "full_attention" if window is None else "sliding_attention"
    kinds = set(getattr(config, "layer_types", None) or [by_default])
    if not kinds <= {"full_attention", "sliding_attention"} or (
        "sliding_attention" in kinds and window is not None and width > window
    ):
        raise UserError(
            f"{name} has {', '.join(sorted(kinds))} (window {window}): a prompt and its answer, "
            f"{width} tokens, need full attention: show fewer items (sft.history_items) or "
            "candidates, or choose another LLM"
        )
