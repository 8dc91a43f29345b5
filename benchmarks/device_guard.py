"""Two processes that want one device: the second computes when the first has ended.

python benchmarks/device_guard.py [--device cuda] [--seconds 2]
"""

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from device import row

from recalign.config import Runtime
from tasks.engine.device import device_of


def held(device: str, seconds: float, stage: str) -> tuple[float, float]:
    """When this process got the device, and when it gave it back (one clock for the machine)."""
    runtime = Runtime(device=device, exclusive="always")
    with device_of(runtime, stage) as take:
        name = take()
        begun = time.monotonic()
        square = torch.ones(1024, 1024, device=name)
        while time.monotonic() < begun + seconds:
            float((square @ square).sum())
        ended = time.monotonic()
    return begun, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=fresh) as pool:
        both = [
            pool.submit(held, given.device, given.seconds, stage) for stage in ("first", "second")
        ]
        first, second = sorted(one.result() for one in both)
    apart = second[0] - first[1]
    if apart < 0:
        sys.exit(f"both held the {given.device} for {-apart:.2f} s")
    row(f"guard, two processes, {given.device}", "one at a time", f"{apart:.2f} s between", None)


if __name__ == "__main__":
    main()
