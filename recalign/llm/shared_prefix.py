"""Decoding many samples of a prompt at once: the prompt's keys and values are stored once.

A step runs the model on one row of R tokens (one per live sample, each with its own position) and
replaces only the attention, through transformers' AttentionInterface: all queries of a prompt
meet its keys in one matrix product, each query meets its own sample's keys in another, and one
softmax runs over both. Everything else of the model acts per token and is untouched.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

ATTENTION = "recalign_shared_prefix"
PREFILL_TOKENS = 8192  # of prompts (padding included) in one forward pass of the prefill
GROWTH = 16  # tokens a sample's cache gets room for at a time: products run over the whole room
# On a CPU a matrix product of fewer than 4 rows, and the last elements of an element-wise function,
# take another kernel with other rounding. Kept away from both, a row's float32 logits are the same
# bits in every batch (measured with MKL on AVX-512).
WIDTH_STEP = 4  # prompts are read padded to a multiple of this, whatever stands beside them
ROW_STEP = 16  # rows are decoded padded to a multiple of this
FEWEST_ROWS = 4  # queries of one prompt, and rows before the vocabulary's product


class UnsupportedAttentionError(ValueError):
    """The model's attention does something that the shared-prefix product does not."""


class _Layer:
    """Keys and values of one layer: prompts [P, G, L, d], samples' own [R, G, capacity, d]."""

    def __init__(self) -> None:
        self.prompt: list[tuple[Tensor, Tensor]] = []
        self.prompt_keys = self.prompt_values = torch.empty(0)
        self.own_keys = self.own_values = torch.empty(0)


class SharedPrefix:
    """A batch of prompts, and the samples that continue each of them.

    P prompts, R live rows (samples), H query heads, G key/value heads, L longest prompt,
    t tokens decoded so far. `attend` is what the hooked model calls in every layer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layers: dict[int, _Layer] = {}
        self.window: int | None = None
        self.prefilling = True
        self.lengths = self.row_prompts = torch.empty(0, dtype=torch.int64)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read every prompt once; logits of its first new token, [P, V], one live row each."""
        device = self.model.device
        self.layers, self.prefilling, self.step_number = {}, True, 0
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        widths = [-(-len(prompt) // WIDTH_STEP) * WIDTH_STEP for prompt in prompts]
        self.width = max(widths)
        logits, first = [], 0
        while first < len(prompts):
            stop = first + 1
            most = first + max(1, PREFILL_TOKENS // widths[first])
            while stop < min(most, len(prompts)) and widths[stop] == widths[first]:
                stop += 1
            logits.append(self._read(prompts[first:stop], widths[first]))
            first = stop
        self._begin()
        return torch.cat(logits)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token to each live row, int64 [R]; logits of the next, [R, V]."""
        if self.step_number == self.capacity:
            self.capacity += GROWTH * (1 + self.capacity // (4 * GROWTH))
            self._move_own(torch.arange(len(self.row_prompts), device=self.row_prompts.device))
        positions = self.lengths[self.row_prompts] + self.step_number
        padded = functional.pad(tokens, (0, len(positions) - len(tokens)))
        logits = self._forward(padded[None], positions[None], 0)[0, : len(tokens)]
        self.step_number += 1
        return logits

    def keep(self, rows: Tensor) -> None:
        """Continue these live rows, in order of their prompts; a row named twice is forked.

        Prompts that no row continues are forgotten.
        """
        rows = functional.pad(rows, (0, -len(rows) % ROW_STEP), value=int(rows[-1]))
        self._move_own(rows)
        prompts, self.row_prompts = self.row_prompts[rows].unique(return_inverse=True)
        if len(prompts) < len(self.lengths):
            self.lengths = self.lengths[prompts]
            for layer in self.layers.values():
                layer.prompt_keys = layer.prompt_keys[prompts]
                layer.prompt_values = layer.prompt_values[prompts]
        self._lay_out()

    def _forward(self, tokens: Tensor, positions: Tensor, logits_to_keep: int | Tensor) -> Tensor:
        return self.model(
            input_ids=tokens,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=logits_to_keep,
            shared_prefix=self,
        ).logits

    def _read(self, prompts: Sequence[Sequence[int]], width: int) -> Tensor:
        """Prefill prompts padded to `width` on the right: no real token ever sees the padding."""
        tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.as_tensor(prompt)
        positions = torch.arange(width).expand_as(tokens)
        n_copies = -(-FEWEST_ROWS // len(prompts))
        last = torch.tensor([[len(prompt) - 1] * n_copies for prompt in prompts])
        device = self.model.device
        return self._forward(tokens.to(device), positions.to(device), last.to(device))[:, 0]

    def _begin(self) -> None:
        """Join the prefilled parts; every prompt starts with one row and no tokens of its own."""
        self.prefilling = False
        self.row_prompts = torch.arange(len(self.lengths), device=self.model.device)
        self.capacity = GROWTH
        for layer in self.layers.values():
            layer.prompt_keys = _joined([keys for keys, _ in layer.prompt], self.width)
            layer.prompt_values = _joined([values for _, values in layer.prompt], self.width)
            layer.prompt.clear()
            layer.own_keys = layer.prompt_keys[:, :, :0]
            layer.own_values = layer.prompt_values[:, :, :0]
        self.keep(self.row_prompts)

    def _move_own(self, rows: Tensor) -> None:
        """Samples' own keys and values in the order of `rows`, with room for `capacity` tokens."""
        for layer in self.layers.values():
            layer.own_keys = _moved(layer.own_keys, rows, self.step_number, self.capacity)
            layer.own_values = _moved(layer.own_values, rows, self.step_number, self.capacity)

    def _lay_out(self) -> None:
        """Give every row a slot in the grid [P, n], n = most rows of one prompt."""
        counts = self.row_prompts.bincount(minlength=len(self.lengths))
        self.per_prompt = max(FEWEST_ROWS, int(counts.max()))
        firsts = counts.cumsum(0) - counts
        rank = torch.arange(len(self.row_prompts), device=counts.device) - firsts[self.row_prompts]
        full = len(self.row_prompts) == len(self.lengths) * self.per_prompt
        self.slots = None if full else self.row_prompts * self.per_prompt + rank
        self.padding = None
        if int(self.lengths.min()) < self.width:
            columns = torch.arange(self.width, device=counts.device)
            self.padding = (columns >= self.lengths[:, None])[:, None, None]  # [P, 1, 1, L]

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention output [B, S, H, d] for query [B, H, S, d], key and value [B, G, S, d]."""
        if self.prefilling:
            layer = self.layers.setdefault(index, _Layer())
            layer.prompt.append((key, value))
            grouped = query.shape[1] != key.shape[1]
            return functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
            ).transpose(1, 2)
        layer, t = self.layers[index], self.step_number
        layer.own_keys[:, :, t] = key[0].transpose(0, 1)
        layer.own_values[:, :, t] = value[0].transpose(0, 1)
        n_rows, groups = query.shape[2], key.shape[1]
        rows = query[0].transpose(0, 1).reshape(n_rows, groups, -1, query.shape[-1])
        rows = rows * scale  # [R, G, H/G, d]
        own = rows @ layer.own_keys.transpose(-1, -2)  # [R, G, H/G, capacity]
        own[..., t + 1 :] = -torch.inf
        shared = self._to_grid(rows) @ layer.prompt_keys.transpose(-1, -2)  # [P, G, n*H/G, L]
        if self.padding is not None:
            shared = shared.masked_fill_(self.padding, -torch.inf)
        # Own columns first: the padding stays at the end, where it cannot shift a sum's order.
        weights = torch.cat([self._to_grid(own), shared], -1).softmax(-1)
        own_weights, shared_weights = weights.tensor_split([self.capacity], -1)
        mixed = self._to_rows(own_weights, n_rows) @ layer.own_values
        mixed = mixed + self._to_rows(shared_weights @ layer.prompt_values, n_rows)
        return mixed.reshape(1, n_rows, query.shape[1], -1)

    def _to_grid(self, rows: Tensor) -> Tensor:
        """[R, G, H/G, x] -> [P, G, n*H/G, x]; empty slots are zero."""
        if self.slots is not None:
            grid = rows.new_zeros(len(self.lengths) * self.per_prompt, *rows.shape[1:])
            rows = grid.index_copy_(0, self.slots, rows)
        _, groups, share, width = rows.shape
        rows = rows.view(len(self.lengths), self.per_prompt, groups, share, width)
        return rows.transpose(1, 2).reshape(len(self.lengths), groups, -1, width)

    def _to_rows(self, grid: Tensor, n_rows: int) -> Tensor:
        """[P, G, n*H/G, x] -> [R, G, H/G, x], the inverse of `_to_grid`."""
        n_prompts, groups, _, width = grid.shape
        rows = grid.reshape(n_prompts, groups, self.per_prompt, -1, width).transpose(1, 2)
        rows = rows.reshape(n_prompts * self.per_prompt, groups, -1, width)
        return rows if self.slots is None else rows[self.slots]


def _joined(parts: list[Tensor], width: int) -> Tensor:
    """[p, G, l, d] of several l, padded with zeros to [P, G, width, d]."""
    return torch.cat([functional.pad(part, (0, 0, 0, width - part.shape[2])) for part in parts])


def _moved(cache: Tensor, rows: Tensor, filled: int, capacity: int) -> Tensor:
    _, heads, _, width = cache.shape
    moved = cache.new_empty(len(rows), heads, capacity, width)
    if filled:
        torch.index_select(cache[:, :, :filled], 0, rows, out=moved[:, :, :filled])
    moved[:, :, filled:] = 0  # garbage might be NaN, which passes through a zero weight
    return moved


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls in every layer; `options` holds the decoding state."""
    state = options.get("shared_prefix")
    if not isinstance(state, SharedPrefix):
        raise UnsupportedAttentionError("the model does not pass keyword arguments to attention")
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise UnsupportedAttentionError(f"the attention needs {name!r}")
    if attention_mask is not None:
        raise UnsupportedAttentionError("the model builds a mask of its own")
    if options.get("sliding_window") is not None:
        state.window = min(options["sliding_window"], state.window or options["sliding_window"])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    index = int(getattr(module, "layer_idx"))  # noqa: B009 (nn.Module types it as a tensor)
    return state.attend(index, query, key, value, scale), None


@contextmanager
def hooked(model: PreTrainedModel) -> Iterator[None]:
    """Run `model` with the shared-prefix attention; its own is put back at the end."""
    AttentionInterface.register(ATTENTION, _attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
