"""Seconds and peak memory on a processor or a GPU, and rows of the table of `gpu.sh`."""

import time
from collections.abc import Callable

import torch
from peak_memory import peak_mib

SIDE = 2048  # of the square matrices whose product is the measured peak


def clock(device: str, threads: int = 0) -> Callable[[], float]:
    """Seconds of the GPU's finished work; on a processor, CPU seconds of one thread, else wall."""
    if device == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def finished() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return finished


def forget_peak(device: str) -> None:
    """Start to measure the peak memory of a GPU anew; a process's cannot be."""
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """Most memory held: by torch on the GPU since `forget_peak`, or by this process ever."""
    held = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else peak_mib()
    return held / 1024


def products_per_second(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second in products of square matrices, the best of five."""
    one, other = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
    now, taken = clock(device), []
    for _ in range(6):
        started = now()
        one @ other
        taken.append(now() - started)
    return 2 * SIDE**3 / min(taken[1:])


def row(part: str, speed: str, beside: str, memory: float | None) -> None:
    """A line of the table."""
    print(f"| {part} | {speed} | {beside} | {f'{memory:.1f} GiB' if memory else '-'} |", flush=True)
