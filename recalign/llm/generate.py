"""Sampling N reasonings per prompt: one prefill per prompt, one random stream per sample."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.config import SamplingConfig
from recalign.errors import UserError
from recalign.llm.probe import shared_prefix_refusal
from recalign.llm.repeated_cache import RepeatedCache
from recalign.llm.sampling import sample_tokens, stream_keys, uniforms
from recalign.llm.shared_prefix import SharedPrefix, hooked
from recalign.progress import Progress, silent

log = logging.getLogger(__name__)

COMPACT_BELOW = 0.85
"""Finished rows are dropped once the live share of the batch falls below this."""
SHARED_STEPS = 8
"""Tokens for which samples that agree so far are decoded as one."""


@dataclass(frozen=True)
class Generated:
    """One sampled continuation."""

    user: int
    sample: int  # 0..N-1; -1 is the greedy one
    token_ids: list[int]  # without the token that ended it
    finished: bool  # False: cut off at max_new_tokens


class Decoder(Protocol):
    """A batch of prompts and the live rows that continue them."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits of the first new token of each prompt, [P, V]; one live row per prompt."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] after one more token of each live row, int64 [R]."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these live rows, in order of their prompts; one named twice is forked."""


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    users: np.ndarray,
    config: SamplingConfig,
    n_samples: int,
    greedy: bool,
    rows: int = 2048,
    device: str | torch.device = "cpu",
    progress: Progress = silent,
    *,
    stream: str = "reasonings",
) -> list[Generated]:
    """`n_samples` sampled continuations of every prompt, and the greedy one (sample -1) if asked.

    prompt_ids: one token list per user of `users`, int64 [U]. At most `rows` samples are decoded at
    once (or one prompt's). Sample s of user u draws from the stream (config.seed, `stream`, u, s),
    one number per token, so in float32 its text depends on neither `rows` nor the other prompts.
    Returns user by user in the given order, samples ascending. Raises UserError for a prompt that
    is empty or leaves no room for max_new_tokens.
    """
    users = np.asarray(users)
    _check_prompts(model, prompt_ids, users, config.max_new_tokens)
    if model.device.type != torch.device(device).type:  # quantised models refuse any move
        nn.Module.to(model, torch.device(device))
    model.eval()
    stops = torch.tensor(stop_tokens(model, tokenizer), device=model.device)
    samples = torch.arange(-1 if greedy else 0, n_samples, device=model.device)
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    results: list[list[Generated]] = [[] for _ in prompt_ids]
    started, n_tokens = time.monotonic(), 0
    with _decoder(model, prompt_ids, config.max_new_tokens) as decoder:
        done = 0
        for batch in _even_batches(order, rows // len(samples)):
            tokens, lengths, ended = _decode(
                decoder, [prompt_ids[i] for i in batch], torch.as_tensor(users[batch]),
                samples, stops, config, stream,
            )  # fmt: skip
            n_tokens += int(lengths.sum())
            cut = iter(zip(tokens.tolist(), lengths.tolist(), ended.tolist(), strict=True))
            for i in batch:
                for sample in samples.tolist():
                    ids, length, finished = next(cut)
                    results[i].append(Generated(int(users[i]), sample, ids[:length], finished))
            speed = n_tokens / max(time.monotonic() - started, 1e-9)
            done += len(batch)
            progress(done, len(order), f"{speed:,.0f} tokens/s")
    return [sample for one in results for sample in one]


def _even_batches(order: list[int], most: int) -> list[list[int]]:
    """`order` cut into as few runs of at most `most` as possible, their sizes equal to within 1."""
    n = -(-len(order) // max(1, most))
    cuts = [len(order) * i // n for i in range(n + 1)] if n else [0]
    return [order[first:stop] for first, stop in pairwise(cuts)]


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a text: the model's generation settings and the tokenizer's."""
    settings = model.generation_config.eos_token_id if model.generation_config else None
    found = {tokenizer.eos_token_id}
    found.update(settings if isinstance(settings, list) else [settings])
    return sorted(token for token in found if token is not None)


def _check_prompts(
    model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], users: np.ndarray, max_new: int
) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    for user, prompt in zip(users, prompt_ids, strict=True):
        if not len(prompt):
            raise UserError(f"the prompt of user {user} is empty")
        if limit is not None and len(prompt) + max_new > limit:
            raise UserError(
                f"the prompt of user {user} has {len(prompt)} tokens; with max_new_tokens = "
                f"{max_new} that is more than the model's {limit}"
            )


@contextmanager
def _decoder(
    model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], max_new: int
) -> Iterator[Decoder]:
    refusal = shared_prefix_refusal(model, prompt_ids, max_new)
    if refusal is not None:
        log.warning("generation copies each prompt's cache per sample (slower): %s", refusal)
        yield RepeatedCache(model)
        return
    with hooked(model):
        yield SharedPrefix(model)


def _decode(
    decoder: Decoder,
    prompts: list[Sequence[int]],
    users: Tensor,
    samples: Tensor,
    stops: Tensor,
    config: SamplingConfig,
    stream: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode one batch; tokens [P*S, max_new], lengths [P*S] and whether a stop token came.

    Samples of a prompt that agree so far share one decoded row, for the first SHARED_STEPS tokens.
    """
    device, n = samples.device, len(samples)
    user_of = users.to(device, torch.int64).repeat_interleave(n)
    sample_of = samples.repeat(len(prompts))
    keys = stream_keys(config.seed, stream, user_of, sample_of)
    tokens = torch.zeros(len(keys), config.max_new_tokens, dtype=torch.int64, device=device)
    lengths = torch.full_like(keys, config.max_new_tokens)
    live = torch.arange(len(keys), device=device)  # samples that still go on
    row_of = live // n  # the decoder's row of each live sample
    logits = decoder.prefill(prompts)
    for step in range(config.max_new_tokens):
        new = sample_tokens(
            logits, row_of, uniforms(keys[live], step), sample_of[live] < 0,
            config.temperature, config.top_k, config.top_p,
        )  # fmt: skip
        tokens[live, step] = new
        stopped = torch.isin(new, stops)
        lengths[live[stopped]] = step
        live, row_of, new = live[~stopped], row_of[~stopped], new[~stopped]
        if not len(live) or step + 1 == config.max_new_tokens:
            break
        row_of, fed = _next_rows(decoder, row_of, new, len(logits), step)
        logits = decoder.step(fed)
    return tokens.cpu(), lengths.cpu(), (lengths < config.max_new_tokens).cpu()


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
    else:  # as many rows as before; those without a sample are fed anything
        return row_of, new.new_zeros(n_rows).index_copy_(0, row_of, new)
    if not torch.equal(parents, torch.arange(n_rows, device=parents.device)):
        decoder.keep(parents)
    return inverse, fed
