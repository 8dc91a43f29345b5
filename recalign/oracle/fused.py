"""Linear layer and cross-entropy in one, in chunks, with the gradient formed in the forward pass.

The logits of N states never exist as a whole, and nothing of a chunk is kept for the backward
pass: softmax(logits) is at hand when the loss is, so the gradient is taken there and then.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_ROWS = 512
ROW_MULTIPLE = 128  # few different shapes: oneDNN keeps a kernel, and its memory, for each


def fused_cross_entropy(
    states: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
) -> Tensor:
    """Mean over N of -log softmax(states @ matrix.T + bias)[target].

    states [N, d], matrix [C, d], bias [C], targets int64 [N] in 0..C-1; `dtype` is that of the
    matrix products and the softmax (sums over chunks keep the type of `states`).
    """
    loss: Tensor = _LinearCrossEntropy.apply(states, matrix, bias, targets, dtype)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        n = len(states)
        # The bias is one more column, so its gradient comes out of the same product; the
        # softmax ignores a shift, and a centred bias loses least when rounded.
        inputs = torch.cat([states, torch.ones_like(states[:, :1])], 1)
        weights = torch.cat([matrix, (bias - bias.mean())[:, None]], 1).to(dtype)
        vectors = matrix.to(dtype)
        extra = -n % ROW_MULTIPLE
        rounded = F.pad(inputs, (0, 0, 0, extra)).to(dtype)  # rows of zeros add nothing below
        wanted = F.pad(targets, (0, extra))[:, None]
        hits = states.new_empty(n + extra, 1)
        to_states = states.new_empty(n + extra, states.shape[1])
        to_weights = states.new_zeros(inputs.shape[1], len(matrix))
        for rows in _chunks(n + extra, len(matrix), states.device):
            p = torch.softmax(rounded[rows] @ weights.T, dim=1)
            hits[rows] = p.gather(1, wanted[rows]).to(states.dtype)
            to_states[rows] = p @ vectors
            to_weights += rounded[rows].T @ p
        # softmax - one-hot: the one-hot part apart and exactly, as 1 - p rounds to 1 in bfloat16.
        to_states = to_states[:n] - matrix[targets]
        to_weights = to_weights.T.index_add(0, targets, inputs, alpha=-1)
        ctx.save_for_backward(to_states / n, to_weights / n)
        return -hits[:n].clamp_min(torch.finfo(torch.float32).tiny).log().mean()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_weights = ctx.saved_tensors
        to_matrix, to_bias = to_weights[:, :-1], to_weights[:, -1]
        return upstream * to_states, upstream * to_matrix, upstream * to_bias, None, None


def fused_negatives_cross_entropy(
    states: Tensor, own: Tensor, negatives: Tensor, bias: Tensor, column: Tensor, left_out: Tensor
) -> Tensor:
    """Mean over N of -log softmax over [own[i], states[i] @ negatives.T + bias] at own[i].

    states [N, d], own [N], negatives [K, d], bias [K]; where `left_out` [N] is true, the negative
    in `column` [N] (0..K-1) does not count for that row.
    """
    loss: Tensor = _NegativesCrossEntropy.apply(states, own, negatives, bias, column, left_out)
    return loss


class _NegativesCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        own: Tensor,
        negatives: Tensor,
        bias: Tensor,
        column: Tensor,
        left_out: Tensor,
    ) -> Tensor:
        n = len(states)
        hits = torch.empty_like(own)
        to_states = torch.empty_like(states)
        to_negatives, to_bias = torch.zeros_like(negatives), torch.zeros_like(bias)
        for rows in _chunks(n, len(negatives), states.device):
            logits = torch.addmm(bias, states[rows], negatives.T)
            at = column[rows, None]
            kept = logits.gather(1, at).masked_fill(left_out[rows, None], -torch.inf)
            logits.scatter_(1, at, kept)
            p = torch.softmax(torch.cat([own[rows, None], logits], 1), dim=1)
            hits[rows], p = p[:, 0], p[:, 1:]
            to_states[rows] = p @ negatives
            to_negatives.addmm_(p.T, states[rows])
            to_bias += p.sum(0)
        ctx.save_for_backward(to_states / n, (hits - 1) / n, to_negatives / n, to_bias / n)
        return -hits.clamp_min(torch.finfo(torch.float32).tiny).log().mean()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *(upstream * gradient for gradient in ctx.saved_tensors), None, None


def _chunks(n: int, n_classes: int, device: torch.device) -> Iterator[slice]:
    """Rows at a time: few on a CPU, whose cache must hold the logits, more on an accelerator."""
    step = CHUNK_ROWS if device.type == "cpu" else max(CHUNK_ROWS, (1 << 28) // n_classes)
    for start in range(0, n, step):
        yield slice(start, start + step)


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    known = torch.cpu.get_capabilities()
    return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") else torch.float32
