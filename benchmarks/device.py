"""Seconds and peak memory on a processor or a GPU, and rows of the table of `gpu.sh`."""

import gc
import time
from collections.abc import Callable

import torch
from peak_memory import peak_mib

SIDES = {"cpu": 2048, "cuda": 8192}  # of the square matrices whose product is the measured peak:
# a product of 2048 takes a large GPU no longer than to start it
ROOM_SHARE = 0.5  # of the GPU memory that is free once the model is there


def clock(device: str, threads: int = 0) -> Callable[[], float]:
    """Seconds of the GPU's finished work; on a processor, CPU seconds of one thread, else wall."""
    if device == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def finished() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return finished


def forget_peak(device: str) -> None:
    """Start to measure the peak memory of a GPU anew; a process's cannot be.

    Python collects cycles late, such as a Trainer with its model, which would be held beside ours.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """Most memory held: by torch on the GPU since `forget_peak`, or by this process ever."""
    held = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else peak_mib()
    return held / 1024


def gigabytes_at_once(otherwise: float, free_bytes: int | None) -> float:
    """Room for texts that are written at once: half a GPU's free memory; None: no GPU, as usual."""
    return otherwise if free_bytes is None else ROOM_SHARE * free_bytes / 1e9


def free_bytes(device: str) -> int | None:
    """Free memory of the GPU; None on a processor."""
    return torch.cuda.mem_get_info()[0] if device != "cpu" else None


def products_per_second(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second in products of square matrices, the best of five."""
    side = SIDES[device]
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    now, taken = clock(device), []
    for _ in range(6):
        started = now()
        one @ other
        taken.append(now() - started)
    return 2 * side**3 / min(taken[1:])


def row(part: str, speed: str, beside: str, memory: float | None) -> None:
    """A line of the table."""
    print(f"| {part} | {speed} | {beside} | {f'{memory:.1f} GiB' if memory else '-'} |", flush=True)
