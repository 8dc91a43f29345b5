"""Log-probabilities under the reference policy, computed once before training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import distributed, nn

from recalign.alignment.forward import PackedCollator, completion_log_probs
from recalign.alignment.rows import Rows
from recalign.config import AlignmentConfig, ReferenceConfig
from recalign.progress import Progress, silent

if TYPE_CHECKING:
    from recalign.policy import Policy

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
    policy: "Policy",
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
    model, batch_size = policy.model, config.micro_batch_size
    device, autocast = model.device, config.precision == "bfloat16"
    plain = adapter or not hasattr(model, "peft_config")
    off = nullcontext() if plain else cast(Any, model).disable_adapter()
    collate = PackedCollator(policy.pad_id)
    result = np.zeros((len(rows), rows.eps.shape[1] + 1), np.float32)
    order = np.argsort(rows.lengths, kind="stable")
    launched = distributed.is_available() and distributed.is_initialized()
    rank = distributed.get_rank() if launched else 0
    n_processes = distributed.get_world_size() if launched else 1
    with off, in_evaluation(model), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for start in range(rank * batch_size, len(rows), n_processes * batch_size):
            batch_rows = order[start : start + batch_size]
            batch = collate(rows.records(batch_rows))
            summed, _ = completion_log_probs(model, {k: v.to(device) for k, v in batch.items()})
            result[batch_rows] = summed.float().cpu().numpy()
            progress(min(start + batch_size, len(rows)), len(rows), "reference")
    if launched:  # every row is zero in all processes but one
        whole = torch.from_numpy(result).to(device)
        distributed.all_reduce(whole)
        result = whole.cpu().numpy()
    return ReferenceLogProbs(result[:, 0], result[:, 1:])
