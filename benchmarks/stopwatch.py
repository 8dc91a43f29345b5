"""CPU seconds, users a second and peak memory of the process that measures itself (Linux).

Imported under the interpreters of other libraries too: the standard library and torch only.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from peak_memory import peak_mib

WARM_UP = 1  # batches before an epoch's stopwatch starts
Found = dict[str, float]


class Stopwatch:
    """CPU seconds of an epoch from some of its batches, and what was fetched before the first."""

    def __init__(self) -> None:
        self.begun = time.process_time()
        self.fetched = self.warm = self.ended = 0.0
        self.batches = 0

    def batch_starts(self) -> None:
        if self.batches == 0:
            self.fetched = time.process_time()
        if self.batches == WARM_UP:
            self.warm = time.process_time()

    def batch_ends(self) -> None:
        self.batches += 1
        self.ended = time.process_time()

    def elapsed(self) -> float:
        return time.process_time() - self.begun

    def epoch(self, n_batches: int) -> float:
        timed = (self.ended - self.warm) / (self.batches - WARM_UP)
        return self.fetched - self.begun + timed * n_batches


def listening(base: type, watch: Stopwatch) -> Any:
    """A Lightning callback (`base` is its class) that tells `watch` of epochs and batches."""

    class Listening(base):  # type: ignore[misc]
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if watch.batches == 0:
                watch.begun = time.process_time()

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            watch.batch_starts()

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, i: int
        ) -> None:
            watch.batch_ends()

    return Listening()


def result(watch: Stopwatch, n_batches: int, model: torch.nn.Module) -> Found:
    """What training showed, peak memory included."""
    size = sum(p.numel() for p in model.parameters())
    seconds = watch.epoch(n_batches)
    return {
        "epoch_seconds": seconds,
        "timed_batches": watch.batches - WARM_UP,
        "batches": n_batches,
        "parameters": size,
        "peak_mib": peak_mib(),
    }


def users_per_second(
    n_users: int, evaluate: Callable[[], Any], now: Callable[[], float] = time.process_time
) -> Found:
    started = now()
    evaluate()
    return {"users_per_second": n_users / (now() - started)}
