"""Log-probabilities under the reference policy, computed once before training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn

from recalign.alignment.forward import token_log_probs, tokens_present
from recalign.alignment.rows import PackedRows, Rows
from recalign.config import AlignmentConfig, ReferenceConfig
from recalign.policy import Policy
from recalign.progress import Progress, silent
from recalign.training.adapters import attention
from recalign.training.packing import pack

FILE = "reference.npz"


@dataclass(frozen=True)
class ReferenceLogProbs:
    """Token-summed log-probabilities of n pairs: chosen float32 [n], rejected float32 [n, K]."""

    chosen: np.ndarray
    rejected: np.ndarray

    def save(self, path: Path) -> None:
        """Write both arrays to one .npz file, atomically."""
        draft = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(draft, chosen=self.chosen, rejected=self.rejected)
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> "ReferenceLogProbs":
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["chosen"], arrays["rejected"])


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probabilities of all tokens of n rows, completion after completion."""

    rows: list[np.ndarray]
    """float32 [tokens of the row's completions] each."""

    def save(self, path: Path) -> None:
        """Write all rows to one .npz file, atomically."""
        draft = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(draft, tokens=np.concatenate(self.rows), sizes=[len(row) for row in self.rows])
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> "TokenLogProbs":
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(np.split(arrays["tokens"], np.cumsum(arrays["sizes"])[:-1]))


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """The model without dropout and without gradients, and as it was afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def reference_log_probs(
    policy: Policy,
    rows: Rows,
    config: AlignmentConfig | ReferenceConfig,
    progress: Progress = silent,
    *,
    adapter: bool = True,
) -> ReferenceLogProbs:
    """The reference's columns for `rows`, by the same packed pass as training.

    `adapter=False` switches a PEFT model's adapter off: the policy before any alignment; else the
    weights count as they are. Batches hold rows of similar length; the result is in the rows'
    order. The processes of a launch share the batches.
    """
    result = np.zeros((len(rows), rows.eps.shape[1] + 1), np.float32)
    for batch_rows, tokens, _ in _scored(policy, rows, config, progress, adapter=adapter):
        result[batch_rows] = tokens.sum(-1).float().cpu().numpy()
    result = _of_all_processes(result, policy)
    return ReferenceLogProbs(result[:, 0], result[:, 1:])


def token_log_probs_of(
    policy: Policy,
    rows: PackedRows,
    config: AlignmentConfig,
    progress: Progress = silent,
    *,
    adapter: bool = True,
) -> TokenLogProbs:
    """The log-probability of every token of every completion; else as `reference_log_probs`."""
    sizes = [sum(map(len, rows.packed(i).completions)) for i in range(len(rows.lengths))]
    ends = np.cumsum(sizes)
    result = np.zeros(int(ends[-1]) if sizes else 0, np.float32)
    for batch_rows, tokens, lengths in _scored(policy, rows, config, progress, adapter=adapter):
        kept = tokens_present(lengths)
        for place, row in enumerate(batch_rows.tolist()):
            result[ends[row] - sizes[row] : ends[row]] = tokens[place][kept[place]].cpu().numpy()
    return TokenLogProbs(np.split(_of_all_processes(result, policy), ends[:-1]))


def _scored(
    policy: Policy,
    rows: PackedRows,
    config: AlignmentConfig | ReferenceConfig,
    progress: Progress,
    *,
    adapter: bool,
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """This process's batches: numbers of the rows [b], log-probabilities [b, S, L], counts."""
    model, batch_size = policy.model, config.micro_batch_size
    device, autocast = model.device, config.precision == "bfloat16"
    plain = adapter or not hasattr(model, "peft_config")
    off = nullcontext() if plain else cast(Any, model).disable_adapter()
    lengths = rows.lengths
    order = np.argsort(lengths, kind="stable")
    launched = distributed.is_available() and distributed.is_initialized()
    rank = distributed.get_rank() if launched else 0
    n_processes = distributed.get_world_size() if launched else 1
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
    with off, in_evaluation(model), attention(model, config.precision), bfloat16:
        for start in range(rank * batch_size, len(lengths), n_processes * batch_size):
            batch_rows = order[start : start + batch_size]
            packed = vars(pack([rows.packed(row) for row in batch_rows], policy.pad_id))
            batch = {name: values.to(device) for name, values in packed.items()}
            yield batch_rows, token_log_probs(model, batch), batch["lengths"]
            progress(min(start + batch_size, len(lengths)), len(lengths), "reference")


def _of_all_processes(found: np.ndarray, policy: Policy) -> np.ndarray:
    """`found`, to which every process of a launch has given the rows of its own batches."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return found
    whole = torch.from_numpy(found).to(policy.model.device)
    distributed.all_reduce(whole)  # every row is zero in all processes but one
    return whole.cpu().numpy()
