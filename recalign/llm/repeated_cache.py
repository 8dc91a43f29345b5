"""Decoding for models whose attention cannot be hooked: the prompt's cache is copied per sample."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from recalign.errors import UserError


class RepeatedCache:
    """The same three operations as SharedPrefix, on transformers' own cache.

    Prompts are read once, left-padded under a mask; their cache is then repeated for the samples.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        inner: Any = model
        if hasattr(model, "get_base_model"):  # an adapter stays apart: peft names none of this
            inner = inner.get_base_model()
        self.takes = inspect.signature(inner.forward).parameters

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read every prompt once; logits of its first new token, [P, V], one live row each."""
        width = max(len(prompt) for prompt in prompts)
        tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt) :] = torch.as_tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        self.cache = DynamicCache(config=self.model.config)
        self.mask = mask.to(self.model.device)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        return self._forward(tokens.to(self.model.device), positions)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token to each live row, int64 [R]; logits of the next, [R, V]."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        return self._forward(tokens[:, None], self.mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: Tensor) -> None:
        """Continue these live rows, in order of their prompts; a row named twice is forked."""
        self.mask = self.mask[rows]
        try:
            self.cache.batch_select_indices(rows)
        except AttributeError as error:
            name = type(self.model).__name__
            raise UserError(f"{name} keeps a state that cannot be copied per sample") from error

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        options: dict[str, Any] = {}
        if "position_ids" in self.takes:
            options["position_ids"] = positions
        if "logits_to_keep" in self.takes:
            options["logits_to_keep"] = 1
        return self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **options,
        ).logits[:, -1]
