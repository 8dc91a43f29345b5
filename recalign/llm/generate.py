"""Sampling N texts per prompt: each prompt is read once, each sample has its own random stream."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from recalign.errors import UserError
from recalign.llm.probe import shared_prefix_refusal
from recalign.llm.repeated_cache import RepeatedCache
from recalign.llm.sampling import (
    GPU_SHARE,
    logits_at_once,
    sample_tokens,
    stream_keys,
    uniforms,
)
from recalign.llm.shared_prefix import SharedPrefix, hooked
from recalign.writer import Asked

log = logging.getLogger(__name__)

COMPACT_BELOW = 0.85  # finished rows are dropped once the live share of the batch is lower
LOGIT_COPIES = 2  # of a row's logits in memory at once
SHARED_STEPS = 8  # tokens for which samples that agree so far are decoded as one


class Generated(NamedTuple):
    """One sampled continuation."""

    user: int
    sample: int  # 0..N-1; -1 is the greedy one
    token_ids: list[int]  # without the token that ended it
    end: int | None  # that token; None: cut off at max_new_tokens

    @property
    def finished(self) -> bool:
        """Whether it ended before max_new_tokens."""
        return self.end is not None


class Room(NamedTuple):
    """How much is decoded at once; in float32 on a processor it changes no text.

    Elsewhere sums are rounded otherwise in a batch of another size, so a few texts may differ.
    """

    rows: int = 2048  # texts
    gigabytes: float = 2.0  # of caches and logits

    def beside_scratch(self, device: str) -> "Room":
        """What is left for caches and logits; a GPU takes a part to draw tokens in."""
        return (
            self if device == "cpu" else self._replace(gigabytes=(1 - GPU_SHARE) * self.gigabytes)
        )


ROOM = Room()


class Decoder(Protocol):
    """A batch of prompts and the live rows that continue them."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits of the first new token of each prompt, [P, V]; one live row per prompt."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] after one more token of each live row, int64 [R]."""

    def keep(self, rows: Tensor) -> None:
        """Continue these live rows, in order of their prompts; a row named twice is forked."""


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    users: Sequence[int] | np.ndarray,
    asked: Asked,
    stops: Sequence[int],
    room: Room = ROOM,
) -> Iterator[list[Generated]]:
    """Every text asked for of every prompt, batch after batch, shortest prompts first.

    prompt_ids: one token list per user of `users` [U]. stops: the tokens that end a text. As many
    texts are decoded at once as `room` has (at least those of one prompt). Each token is drawn with
    one number of its text's own random stream (see `Asked`), so in float32 on a processor a text
    depends on neither `room` nor the other prompts. In a batch the texts of a prompt follow each
    other, samples ascending. Raises UserError for a prompt that is empty or leaves no room for
    max_new_tokens.
    """
    users, max_new = np.asarray(users), asked.sampling.max_new_tokens
    device = model.device.type
    _check_prompts(model, prompt_ids, users, max_new)
    model.eval()
    refusal = shared_prefix_refusal(model, prompt_ids, max_new)
    if refusal is not None:
        log.warning("generation copies each prompt's cache per sample (slower): %s", refusal)
    decoder: Decoder = SharedPrefix(model) if refusal is None else RepeatedCache(model)
    ends = torch.tensor(list(stops), dtype=torch.int64, device=model.device)
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    copies = 1 if refusal is None else len(asked.samples)
    left, at_once = room.beside_scratch(device), logits_at_once(device, room.gigabytes)
    parts = _parts(model, [len(prompt_ids[i]) for i in order], asked, left, copies)
    for batch in _even_batches(order, parts):
        prompts = [prompt_ids[i] for i in batch]
        with hooked(model) if refusal is None else nullcontext():
            owners = torch.as_tensor(users[batch])
            tokens, lengths = _decode(decoder, prompts, owners, asked, ends, at_once)
        texts = product(users[batch].tolist(), asked.samples)
        decoded = zip(texts, tokens.tolist(), lengths.tolist(), strict=True)
        yield [
            Generated(user, sample, ids[:n], ids[n] if n < max_new else None)
            for (user, sample), ids, n in decoded
        ]


def _parts(
    model: PreTrainedModel, lengths: Sequence[int], asked: Asked, room: Room, copies: int
) -> list[float]:
    """The part of `room` that each prompt of these lengths takes, `copies` of it and its texts."""
    config, n, size = model.config.get_text_config(), len(asked.samples), model.dtype.itemsize
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * width * size
    per_text = asked.sampling.max_new_tokens * per_token + LOGIT_COPIES * config.vocab_size * size
    bytes_of = [copies * length * per_token + n * per_text for length in lengths]
    return [max(n / room.rows, one / (room.gigabytes * 1e9)) for one in bytes_of]


def _even_batches(order: list[int], parts: list[float]) -> list[list[int]]:
    """`order` cut into runs whose parts sum to at most 1 (or of one prompt), about equally full."""
    total, largest = sum(parts), max(parts, default=0.0)
    most = min(1.0, total / max(1, -(-total // 1)) + largest * (1 - 1e-6)) + 1e-9
    batches: list[list[int]] = []
    filled = most
    for prompt, part in zip(order, parts, strict=True):
        if filled + part > most:
            batches.append([])
            filled = 0.0
        batches[-1].append(prompt)
        filled += part
    return batches


def _check_prompts(
    model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], users: np.ndarray, max_new: int
) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for user, prompt in zip(users, prompt_ids, strict=True):
        if not len(prompt):
            raise UserError(f"the prompt of user {user} is empty")
        if limit is not None and len(prompt) + max_new > limit:
            raise UserError(
                f"the prompt of user {user} has {len(prompt)} tokens; with max_new_tokens = "
                f"{max_new} that is more than the model's {limit}"
            )


def _decode(
    decoder: Decoder,
    prompts: list[Sequence[int]],
    users: Tensor,
    asked: Asked,
    stops: Tensor,
    at_once: int,
) -> tuple[Tensor, Tensor]:
    """Decode one batch; tokens [P*S, max_new] and lengths [P*S], max_new where no stop token came.

    Samples of a prompt that agree so far share one decoded row, for the first SHARED_STEPS tokens.
    """
    device, n, max_new = stops.device, len(asked.samples), asked.sampling.max_new_tokens
    user_of = users.to(device, torch.int64).repeat_interleave(n)
    sample_of = torch.tensor(asked.samples, device=device).repeat(len(prompts))
    keys = stream_keys(asked.sampling.seed, asked.stream, user_of, sample_of)
    tokens = torch.zeros(len(keys), max_new, dtype=torch.int64, device=device)
    lengths = torch.full_like(keys, max_new)
    live = torch.arange(len(keys), device=device)  # samples that still go on
    row_of = live // n  # the decoder's row of each live sample
    logits = decoder.prefill(prompts)
    for step in range(max_new):
        draws, greedy = uniforms(keys[live], step), sample_of[live] < 0
        new = sample_tokens(logits, row_of, draws, greedy, asked.sampling, at_once)
        tokens[live, step] = new
        stopped = torch.isin(new, stops)
        lengths[live[stopped]] = step
        live, row_of, new = live[~stopped], row_of[~stopped], new[~stopped]
        if not len(live) or step + 1 == max_new:
            break
        row_of, fed = _next_rows(decoder, row_of, new, len(logits), step)
        logits = decoder.step(fed)
    return tokens.cpu(), lengths.cpu()


def _next_rows(
    decoder: Decoder, row_of: Tensor, new: Tensor, n_rows: int, step: int
) -> tuple[Tensor, Tensor]:
    """Fork and drop the decoder's rows as samples part and end: (row of each sample, tokens fed).

    row_of, new: int64 [A], the row and the newest token of each live sample.
    """
    if step < SHARED_STEPS:
        nodes, inverse = (row_of << 32 | new).unique(return_inverse=True)
        parents, fed = nodes >> 32, nodes & 0xFFFFFFFF
    elif len(row_of) < COMPACT_BELOW * n_rows or step == SHARED_STEPS:
        parents, fed = row_of, new
        inverse = torch.arange(len(row_of), device=row_of.device)
    else:  # as many rows as before; what rows without a sample are fed does not matter
        return row_of, new.new_zeros(n_rows).index_copy_(0, row_of, new)
    if not torch.equal(parents, torch.arange(n_rows, device=parents.device)):
        decoder.keep(parents)
    return inverse, fed
