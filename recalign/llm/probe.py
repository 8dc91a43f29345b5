"""Whether the shared-prefix attention gives the model's own logits: tried, not assumed."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from recalign.llm.shared_prefix import SharedPrefix, hooked

_LONGEST = 64  # prompt tokens used in the trial
_STEPS = 2  # tokens decoded in the trial
# What may be raised where a model's attention does not fit; UnsupportedAttentionError is one.
_REFUSALS = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)


def shared_prefix_refusal(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new: int
) -> str | None:
    """Why SharedPrefix cannot serve this model and these prompts, or None if it can.

    The start of the shortest and the longest prompt are decoded for two steps both ways.
    """
    by_length = sorted(prompts, key=len)
    trial = [list(by_length[0][:_LONGEST]), list(by_length[-1][:_LONGEST])]
    follow = [(prompt * (_STEPS + 1))[:_STEPS] for prompt in trial]
    state = SharedPrefix(model)
    try:
        with hooked(model):
            logits = _decoded(state, trial, follow)
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS as error:
        return f"{type(error).__name__}: {error}"
    if not state.layers:
        return f"{type(model).__name__} does not use transformers' attention interface"
    longest = len(by_length[-1]) + max_new
    if state.window is not None and longest > state.window:
        return f"{longest} tokens exceed the model's sliding window of {state.window}"
    expected = torch.stack([_plain(model, p + f) for p, f in zip(trial, follow, strict=True)])
    tolerance = 1e-3 if expected.dtype == torch.float32 else 5e-2
    difference = float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    # `not <=` rather than `>`, so that NaN refuses too.
    if not difference <= tolerance:
        return f"its logits differ from the model's own by {difference:.2g} of the largest"
    return None


def _decoded(state: SharedPrefix, prompts: list[list[int]], follow: list[list[int]]) -> Tensor:
    """Logits [2, steps + 1, V] of the samples' tokens, each prompt continued by two samples."""
    tokens = torch.tensor(follow, device=state.model.device).repeat_interleave(2, 0)
    found = [state.prefill(prompts)]
    state.keep(torch.tensor([0, 0, 1, 1], device=tokens.device))
    found += [state.step(tokens[:, step])[1::2] for step in range(_STEPS)]
    return torch.stack(found, 1)


def _plain(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """The ordinary forward's logits at the last prompt token and after, [steps + 1, V]."""
    ids = torch.tensor([tokens], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0, -_STEPS - 1 :]
