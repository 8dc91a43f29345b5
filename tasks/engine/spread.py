"""Shards of a stage as Prefect tasks of their own: on threads, or in the workers of Dask or Ray."""

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from recalign.config import Runtime
from recalign.errors import UserError, install
from tasks.engine.device import wanted_device
from tasks.engine.job import Job, use_threads

Shard = TypeVar("Shard")
Result = TypeVar("Result")
Opened = TypeVar("Opened")

_own = threading.local()
"""What a worker keeps from shard to shard: its GPU, and the models it opened last."""

_opening = threading.Lock()
"""transformers loads a model by way of global switches: one thread at a time."""


def is_mapped(runtime: Runtime) -> bool:
    """Whether shards are spread; else they are computed one by one in the stage's own process.

    Threads of one process gain nothing on one device, and they cost its progress display.
    """
    return runtime.task_runner != "threads" or runtime.devices > 1


def map_shards(
    job: Job, function: Callable[[Shard], Result], shards: Sequence[Shard]
) -> Iterator[tuple[int, Result]]:
    """Place and result of every shard, as they are done; the first failure ends all.

    `function` is a module's, with the one argument `shard`: workers import it. Shards hold values
    and references, no open files: workers may be on other machines.
    """
    if not shards:
        return
    # Workers on this machine compute on what the stage has taken for them.
    device = job.runtime.device if job.runtime.cluster else job.device
    job.draft.manifest.device = f"{device} by {job.runtime.task_runner}"
    task = Task(fn=function, name=function.__name__, cache_policy=NO_CACHE, persist_result=False)
    with _runner(job.runtime) as runner:
        futures = {}
        for place, shard in enumerate(shards):
            name = f"{job.draft.manifest.stage}: {function.__name__} {place + 1} of {len(shards)}"
            future = runner.submit(task.with_options(task_run_name=name), {"shard": shard})
            futures[future] = place
        for done, future in enumerate(as_completed(list(futures)), 1):
            yield futures[future], future.result()
            job.progress(done, len(shards), "shards")


def worker_runtime(runtime: Runtime) -> Runtime:
    """What a shard is told: one device, and its share of a local machine's cores."""
    share = max(1, (os.cpu_count() or 1) // runtime.devices)
    threads = runtime.threads or (0 if runtime.cluster else share)
    alone: dict[str, Any] = {"task_runner": "threads", "devices": 1, "threads": threads}
    return runtime.model_copy(update=alone)


def worker_device(runtime: Runtime) -> str:
    """The device of this thread: of several GPUs it takes a free one, and keeps it."""
    use_threads(runtime.threads)
    device = wanted_device(runtime)
    if device == "cuda" and not hasattr(_own, "slot"):
        import torch

        names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if len(names) != torch.cuda.device_count():
            names = [str(number) for number in range(torch.cuda.device_count())]
        _own.slot = take_slot(names, Path(tempfile.gettempdir()) / f"recalign-gpus-{os.getuid()}")
        torch.cuda.set_device(names.index(Path(_own.slot.lock_file).stem))
    return device


def take_slot(names: list[str], folder: Path) -> FileLock:
    """The lock of the first of `names` that no other thread or process holds.

    The kernel frees it with the process. UserError when all are held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return lock
    raise UserError(f"runtime.devices: all {len(names)} GPUs of this machine have a worker already")


def opened_last(key: object, open_it: Callable[[], Opened]) -> Opened:
    """What this thread opened last, if it was `key`; else opened now, in its place."""
    if getattr(_own, "key", None) != key:
        _own.key = _own.value = None  # let go of the old one first: both may not fit
        with _opening:
            _own.value = open_it()
        _own.key = key
    value: Opened = _own.value
    return value


def _runner(runtime: Runtime) -> TaskRunner[Any]:
    """The task runner of the settings; UserError when its package is not installed."""
    n = runtime.devices
    try:
        match runtime.task_runner:
            case "threads":
                return ThreadPoolTaskRunner(max_workers=n)
            case "dask":
                from prefect_dask import DaskTaskRunner

                local = {"n_workers": n, "threads_per_worker": 1, "dashboard_address": None}
                if runtime.cluster:
                    return DaskTaskRunner(address=runtime.cluster)
                return DaskTaskRunner(cluster_kwargs=local)
            case "ray":
                if not runtime.cluster:  # a cluster of our own: nobody else may send it work
                    os.environ.setdefault("RAY_AUTH_MODE", "token")
                    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
                from prefect_ray import RayTaskRunner

                if runtime.cluster:
                    return RayTaskRunner(address=runtime.cluster)
                return RayTaskRunner(init_kwargs={"num_cpus": n, "include_dashboard": False})
    except ImportError as error:
        raise UserError(
            f"runtime.task_runner {runtime.task_runner} needs the package {error.name}:"
            f" {install(runtime.task_runner)}"
        ) from error
