"""Can this model take rows that share their prompt? Asked of the model itself, on its own rows."""

from collections.abc import Callable

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from recalign.alignment.forward import completion_log_probs
from recalign.alignment.reference import in_evaluation
from recalign.alignment.rows import PackedRows, Rows
from recalign.errors import UserError
from recalign.policy import Policy
from recalign.training.adapters import base_model
from recalign.training.packing import pack

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.05}
"""Largest difference, in nats, that rounding explains of a completion of one token. Tokens are
rounded up and down: of n tokens it is sqrt(n) times that (SmolLM2 in bfloat16 differs by .07)."""


def plain_log_probs(model: nn.Module, prompt: list[int], completion: list[int]) -> float:
    """log pi(completion | prompt) from one ordinary forward pass over prompt + completion."""
    device = next(model.parameters()).device
    ids = torch.tensor([prompt + completion], device=device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    targets = torch.tensor(completion, device=device)
    return float(logits.log_softmax(-1, dtype=torch.float32).gather(1, targets[:, None]).sum())


def check_policy(policy: Policy) -> None:
    """`check_packed_rows` on two rows of no meaning, before anything is computed with the policy.

    What later stages need of it, so that they do not find that out after hours.
    """
    prompts = [policy.encode_prompt(text) for text in ("One, two.", "One, two, three, four.")]
    chosen, rejected = (policy.encode_completion(text) for text in ("Three.", "Nine or ten."))
    users, eps = np.arange(2), np.zeros((2, 1))
    rows = Rows(users, prompts, [chosen] * 2, [[rejected]] * 2, eps, left_out={})
    check_packed_rows(policy.model, rows, policy.pad_id)


def check_packed_rows(
    model: PreTrainedModel | PeftModel, rows: PackedRows, pad_token_id: int
) -> None:
    """Compare the packed pass with plain ones on the longest and the shortest row.

    Raises UserError when the model cannot run it or gets other log-probabilities: attention
    without 4-D masks (flash), recurrent layers, a sliding window shorter than a row.
    """
    inner = base_model(model)
    name, implementation = type(inner).__name__, inner.config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise UserError(
            f"alignment needs attention with free masks, {name} runs {implementation!r}: "
            "load it with attn_implementation='sdpa'"
        )
    ends = np.unique([rows.lengths.argmax(), rows.lengths.argmin()])
    with in_evaluation(model):
        packed = _refused(lambda: _packed(model, rows, ends, pad_token_id), name)
        for i, row in enumerate(ends):
            given = rows.packed(row)
            found_in_row = packed[i, : len(given.completions)].tolist()
            for found, completion in zip(found_in_row, given.completions, strict=True):
                expected = plain_log_probs(model, given.prompt, completion)
                most = TOLERANCE.get(inner.dtype, 1e-3) * len(completion) ** 0.5
                if not abs(found - expected) <= most:
                    raise UserError(
                        f"{name} does not keep completions that share a prompt apart"
                        f" (log-probability {found:.3f} packed, {expected:.3f} alone):"
                        " alignment needs full attention that takes a 4-D mask and position ids"
                    )


def _packed(model: nn.Module, rows: PackedRows, index: np.ndarray, pad_token_id: int) -> Tensor:
    batch = vars(pack([rows.packed(row) for row in index], pad_token_id))
    device = next(model.parameters()).device
    return completion_log_probs(model, {key: value.to(device) for key, value in batch.items()})[0]


def _refused(forward: Callable[[], Tensor], name: str) -> Tensor:
    """What `forward` returns; UserError when the model refuses its arguments."""
    try:
        return forward()
    except torch.OutOfMemoryError:  # a RuntimeError too, but of the machine
        raise
    except (TypeError, ValueError, IndexError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{name} cannot take a 4-D mask with position ids: {error}") from error
