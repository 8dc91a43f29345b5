"""One checkpoint file per fit, replaced whole: a kill leaves the old one or the new one."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recalign.config.oracle import OracleConfig
from recalign.errors import BadInputError

FILE = "oracle.ckpt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) to a temporary file, fsync it, rename it."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{FILE}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE)


def load_checkpoint(folder: Path, of: str) -> dict[str, Any] | None:
    """The checkpoint in `folder` if it belongs to the fit identified by `of`, else None.

    BadInputError: the file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets in a damaged file
        raise BadInputError(f"{path} is damaged ({error}); delete it to start anew") from error
    return state if state["of"] == of else None


def fit_identity(config: OracleConfig, *arrays: np.ndarray | None) -> str:
    """Digest of settings and data: a checkpoint of another fit is never resumed."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    for array in arrays:
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
