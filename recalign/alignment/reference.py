"""Log-probabilities under the reference policy, computed once before training."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, distributed, nn

from recalign.alignment.forward import token_log_probs, tokens_present
from recalign.alignment.rows import PackedRows, Rows
from recalign.artifacts.digests import whole_file
from recalign.config import AlignmentConfig, ReferenceConfig
from recalign.policy import Policy
from recalign.progress import Progress, silent
from recalign.training.adapters import attention
from recalign.training.packing import pack

logger = logging.getLogger(__name__)

FILE = "reference.npz"
SAVE_SECONDS = 60.0  # between two notes of what is scored: a kill loses no more


@dataclass(frozen=True)
class ReferenceLogProbs:
    """Token-summed log-probabilities of n pairs: chosen float32 [n], rejected float32 [n, K]."""

    chosen: np.ndarray
    rejected: np.ndarray

    def save(self, path: Path) -> None:
        """Write both arrays to one .npz file, atomically."""
        _write(path, chosen=self.chosen, rejected=self.rejected)

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
        _write(path, tokens=np.concatenate(self.rows), sizes=[len(row) for row in self.rows])

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
    kept: Path | None = None,
) -> ReferenceLogProbs:
    """The reference's columns for `rows`, by the same packed pass as training.

    `adapter=False` switches a PEFT model's adapter off: the policy before any alignment; else the
    weights count as they are. Batches hold rows of similar length; the result is in the rows'
    order. The processes of a launch share the batches. `kept` is where the result will be kept, in
    a work folder: beside it stands what a killed pass had scored, and this one goes on with that.
    """
    result = np.zeros((len(rows), rows.eps.shape[1] + 1), np.float32)

    def fill(batch_rows: np.ndarray, tokens: Tensor, lengths: Tensor) -> None:
        result[batch_rows] = tokens.sum(-1).float().cpu().numpy()

    _score(policy, rows, config, result, fill, progress, adapter=adapter, kept=kept)
    result = _of_all_processes(result, policy)
    return ReferenceLogProbs(result[:, 0], result[:, 1:])


def token_log_probs_of(
    policy: Policy,
    rows: PackedRows,
    config: AlignmentConfig,
    progress: Progress = silent,
    *,
    adapter: bool = True,
    kept: Path | None = None,
) -> TokenLogProbs:
    """The log-probability of every token of every completion; else as `reference_log_probs`."""
    sizes = [sum(map(len, rows.packed(i).completions)) for i in range(len(rows.lengths))]
    ends = np.cumsum(sizes)
    result = np.zeros(int(ends[-1]) if sizes else 0, np.float32)

    def fill(batch_rows: np.ndarray, tokens: Tensor, lengths: Tensor) -> None:
        present = tokens_present(lengths)
        for place, row in enumerate(batch_rows.tolist()):
            scored = tokens[place][present[place]]
            result[ends[row] - sizes[row] : ends[row]] = scored.cpu().numpy()

    _score(policy, rows, config, result, fill, progress, adapter=adapter, kept=kept)
    return TokenLogProbs(np.split(_of_all_processes(result, policy), ends[:-1]))


def _score(
    policy: Policy,
    rows: PackedRows,
    config: AlignmentConfig | ReferenceConfig,
    result: np.ndarray,
    fill: Callable[[np.ndarray, Tensor, Tensor], None],
    progress: Progress,
    *,
    adapter: bool,
    kept: Path | None,
) -> None:
    """Let `fill` put every batch of this process into `result`.

    It is given numbers of the rows [b], log-probabilities [b, S, L], and counts of tokens [b, S].
    """
    model, batch_size = policy.model, config.micro_batch_size
    device, autocast = model.device, config.precision == "bfloat16"
    plain = adapter or not hasattr(model, "peft_config")
    off = nullcontext() if plain else cast(Any, model).disable_adapter()
    lengths = rows.lengths
    order = np.argsort(lengths, kind="stable")
    launched = distributed.is_available() and distributed.is_initialized()
    rank = distributed.get_rank() if launched else 0
    n_processes = distributed.get_world_size() if launched else 1
    shape = f"{rank}-{n_processes}-{batch_size}"  # whose batches these are, and how large
    file = None
    if kept:
        kept = kept_for(rows, kept)
        file = kept.with_name(f"{kept.stem}-{shape}.part.npz")
    first = _take_up(file, result) or rank * batch_size
    step = n_processes * batch_size
    saved = time.monotonic()
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
    with off, in_evaluation(model), attention(model, config.precision), bfloat16:
        for start in range(first, len(lengths), step):
            batch_rows = order[start : start + batch_size]
            packed = vars(pack([rows.packed(row) for row in batch_rows], policy.pad_id))
            batch = {name: values.to(device) for name, values in packed.items()}
            fill(batch_rows, token_log_probs(model, batch), batch["lengths"])
            if file and time.monotonic() - saved >= SAVE_SECONDS:
                _write(file, result=result, following=start + step)
                saved = time.monotonic()
            progress(min(start + batch_size, len(lengths)), len(lengths), "reference")


def kept_for(rows: PackedRows, path: Path) -> Path:
    """`path` with the digest of these rows in its name; what is kept for other rows is deleted.

    A work folder holds those where an update of a package changed how texts become tokens, say.
    """
    stem = f"{path.stem}-{rows.digest[:16]}"
    for other in path.parent.glob(f"{path.stem}-*.npz"):
        if not other.name.startswith(stem):
            logger.warning("log-probabilities of other rows are deleted: %s", other)
            other.unlink(missing_ok=True)  # another process of a launch may be first
    return path.with_name(f"{stem}{path.suffix}")


def _take_up(file: Path | None, result: np.ndarray) -> int:
    """Fill `result` with what a killed pass has kept; the row to go on with, 0: none is kept."""
    if file is None or not file.exists():
        return 0
    with np.load(file) as arrays:
        result[:] = arrays["result"]
        return int(arrays["following"])


def _write(path: Path, **arrays: ArrayLike) -> None:
    """Arrays into one .npz file of that name that is always whole."""
    with whole_file(path, uuid.uuid4().hex) as file:  # the processes of a launch all write it
        np.savez(file, allow_pickle=False, **arrays)


def _of_all_processes(found: np.ndarray, policy: Policy) -> np.ndarray:
    """`found`, to which every process of a launch has given the rows of its own batches."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return found
    whole = torch.from_numpy(found).to(policy.model.device)
    distributed.all_reduce(whole)  # every row is zero in all processes but one
    return whole.cpu().numpy()
