"""Which number format multiplies matrices faster on a device: measured, not assumed."""

import logging
import time

import torch

from recalign.config import LoadedModelConfig

log = logging.getLogger(__name__)

ROWS, WIDTH = 256, 1024  # about what generation multiplies
TRIES = 7


def resolved_dtype(config: LoadedModelConfig, device: str) -> str:
    """float32 or bfloat16; for `auto` the faster one here, which is logged.

    A processor without units for bfloat16 multiplies it several times slower than float32.
    """
    if config.dtype != "auto":
        return config.dtype
    speeds = {name: _speed(getattr(torch, name), device) for name in ("float32", "bfloat16")}
    chosen = max(speeds, key=speeds.__getitem__)
    told = ", ".join(f"{name} {speed / 1e9:.0f} GFLOP/s" for name, speed in speeds.items())
    log.info("dtype = auto: %s on %s, so %s is taken", told, device, chosen)
    return chosen


def _speed(dtype: torch.dtype, device: str) -> float:
    """Operations per second of a matrix product, in the best of some tries."""
    one = torch.ones(ROWS, WIDTH, dtype=dtype, device=device)
    other = torch.ones(WIDTH, WIDTH, dtype=dtype, device=device)
    return 2 * ROWS * WIDTH**2 / min(_seconds(one, other) for _ in range(TRIES))


def _seconds(one: torch.Tensor, other: torch.Tensor) -> float:
    started = time.perf_counter()
    (one @ other)[0, 0].item()  # waits for a GPU
    return time.perf_counter() - started
