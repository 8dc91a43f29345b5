"""The processes of a service, recognised by a mark in their environment: no pid file goes stale."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

SERVICE = "RECALIGN_SERVICE"  # the service's home; inherited by all that its processes start
PART = "RECALIGN_PART"
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # set by Prefect's worker
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Member:
    """A running process of a service."""

    process: psutil.Process
    part: str  # `server` or `worker`; of what these started, too
    flow_run: str  # the flow run that the process belongs to, or empty
    leads: bool  # it leads a session: what we or the worker started, not a helper of that


def start(
    home: Path,
    part: str,
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    handed_down: Collection[int] = (),
) -> psutil.Process:
    """Start a part in a session of its own, so that it outlives this shell; it logs to `home`.

    handed_down: numbers of open files that it has under the same numbers.
    """
    marks = {SERVICE: str(home), PART: part}
    with (home / f"{part}.log").open("ab") as file:
        started = subprocess.Popen(
            command, env=environment | marks, cwd=folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            pass_fds=tuple(handed_down),
        )  # fmt: skip
    process = psutil.Process(started.pid)
    for _ in range(500):  # a program that has only just begun has no environment to read yet
        if started.poll() is not None or SERVICE in _environment(process):
            break
        time.sleep(0.01)
    return process


def _environment(process: psutil.Process) -> dict[str, str]:
    """Of a running process; empty where it cannot be read."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def members(home: Path) -> list[Member]:
    """All running processes that bear the mark of the service at `home`, by whatever link."""
    found, place = [], os.path.realpath(home)
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            alive = process.status() != psutil.STATUS_ZOMBIE
            leads = os.getsid(process.pid) == process.pid
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            continue
        mark = environment.get(SERVICE)
        if mark and os.path.realpath(mark) == place and process.pid != os.getpid() and alive:
            part, flow_run = environment.get(PART, ""), environment.get(FLOW_RUN, "")
            found.append(Member(process, part, flow_run, leads))
    return found


def stop(processes: Iterable[psutil.Process], patience: float) -> None:
    """Ask the processes to end; kill those that have not after `patience` seconds."""
    asked = list(processes)
    for process in asked:
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            process.terminate()
    _, stubborn = psutil.wait_procs(asked, timeout=patience)
    kill(stubborn)


def kill(processes: Iterable[psutil.Process]) -> None:
    """End the processes at once and wait until they are gone."""
    doomed = list(processes)
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed, timeout=10)


def end_with_parent() -> None:
    """End this process when its parent dies, however that dies; call it in the main thread.

    A flow run whose worker is gone can neither be cancelled nor write its output, and would end
    at its next log line. Linux only; elsewhere it ends there.
    """
    if sys.platform == "linux":
        signal.signal(signal.SIGHUP, _end_orphaned)
        told_of_death(signal.SIGHUP)()


def told_of_death(number: signal.Signals) -> Callable[[], None]:
    """Has whatever process calls it sent this signal when its parent dies; Linux only."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # found before a fork, where little may be done
    return lambda: prctl(PR_SET_PDEATHSIG, number)


def _end_orphaned(number: int, frame: FrameType | None) -> None:
    """Let Prefect report the end of the run: it must not fail at writing to the dead worker."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    signal.raise_signal(signal.SIGTERM)
