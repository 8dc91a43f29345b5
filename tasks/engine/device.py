"""The device of a stage: taken when the stage first asks for it, by one process of the machine.

Deployments and command lines know nothing of each other, yet two trainings on one GPU end out of
memory. The guard is a lock on a file per device, and not a concurrency limit of Prefect's server:
a GPU belongs to a machine, where runs of several servers and runs without any may meet, and the
kernel drops the lock of a killed process, so that no slot is ever left occupied. It is taken inside
the stage's body, so a cached stage never waits. Processes see each other where they share the
folder for temporary files: one container or user account with a TMPDIR of its own is outside.
"""

import ctypes
import gc
import logging
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from recalign.artifacts.provenance import peak_memory_mb
from recalign.config import Runtime
from recalign.errors import UserError

log = logging.getLogger(__name__)

LARGE_MB = 2048.0


@contextmanager
def device_of(runtime: Runtime, stage: str, n_devices: int = 1) -> Iterator[Callable[[], str]]:
    """Yields a function that tells the device, "cuda" or "cpu", and holds it to the block's end.

    With several devices all of them are held. Who holds one must not wait for another stage.
    """
    with ExitStack() as held:

        @cache
        def device() -> str:
            name = wanted_device(runtime)
            if runtime.exclusive == "always" or (runtime.exclusive == "auto" and name == "cuda"):
                for identity in _identities(name, n_devices):
                    held.enter_context(_alone_on(identity, name, stage))
            held.callback(_free_memory, name)  # before the locks are given back
            return name

        try:
            yield device
        except BaseException as error:
            _forget_locals(error)  # the model among them: a sweep keeps the error, and goes on
            raise


def wanted_device(runtime: Runtime) -> str:
    """cuda or cpu; auto takes a GPU if there is one. UserError for more GPUs than there are."""
    if runtime.device == "cpu":
        return "cpu"
    import torch

    there = torch.cuda.device_count()
    if runtime.device == "auto" and not there:
        return "cpu"
    if not there:
        raise UserError("runtime.device = cuda: this machine has no GPU that torch can use")
    if runtime.devices > there:
        raise UserError(f"runtime.devices: {runtime.devices} asked for, this machine has {there}")
    return "cuda"


@contextmanager
def _alone_on(identity: str, name: str, stage: str) -> Iterator[None]:
    """Wait until no other process of this machine computes on this device."""
    lock = device_lock(identity)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s waits for the %s: another run computes on it", stage, name)
        lock.acquire()
        log.info("%s has the %s now", stage, name)
    try:
        yield
    finally:
        lock.release()


def device_lock(identity: str) -> FileLock:
    """The device's lock, open to every user of the machine."""
    folder = Path(tempfile.gettempdir()) / "recalign-devices"
    if not folder.exists():
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    return FileLock(folder / f"{identity}.lock", mode=0o666)


def _identities(name: str, n_devices: int) -> list[str]:
    """The same names in every process, whatever CUDA_VISIBLE_DEVICES calls the GPUs there.

    In one order for all, so that two runs never hold what the other waits for.
    """
    if name == "cpu":
        return ["cpu"]
    import torch

    numbers = range(min(n_devices, torch.cuda.device_count()))
    used = numbers if n_devices > 1 else [torch.cuda.current_device()]
    return sorted(str(torch.cuda.get_device_properties(number).uuid) for number in used)


def _forget_locals(error: BaseException | None) -> None:
    """Free what the frames that an error has ended still hold, those of its causes, too."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _free_memory(device: str) -> None:
    """Give memory back to the machine, for the next stage or the run that was waiting.

    Python collects cycles late, such as a Trainer with its model; the C library keeps what is freed
    (5 of 6 GB after SmolLM2 was aligned), or tcmalloc where it was put in its place; torch keeps a
    reserve on a GPU. To look takes a fifth of a second: a process that has always been small is
    left alone.
    """
    if device == "cuda" or peak_memory_mb() > LARGE_MB:
        gc.collect()
    loaded = ctypes.CDLL(None)
    with suppress(AttributeError):  # glibc alone has it
        loaded.malloc_trim(0)
    with suppress(AttributeError):  # LD_PRELOAD=libtcmalloc_minimal.so.4
        loaded.MallocExtension_ReleaseFreeMemory()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
