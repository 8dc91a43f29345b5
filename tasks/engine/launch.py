"""A stage's body in several processes, one per device, started by `accelerate launch`."""

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from recalign.artifacts.artifact import Draft
from recalign.artifacts.manifest import Manifest
from recalign.config import Config, Runtime
from recalign.errors import UserError
from recalign.progress import Progress, silent
from tasks.engine.job import Job, use_threads

log = logging.getLogger(__name__)

SECONDS_TO_END = 20.0  # for a launch that was told to end


class Launched(Protocol):
    """What a launch needs of a stage; the stage is pickled by its name."""

    name: str
    body: Callable[..., None]


@dataclass(frozen=True)
class Order:
    """What every process of a launch is given: its stage by name, the rest by value."""

    stage: Launched
    draft: Draft
    runtime: Runtime
    config: Config
    inputs: dict[str, Any]
    """Artifacts and raw files, by the names that the body has for them."""


def run_on_devices(order: Order, progress: Progress) -> Manifest:
    """Call the stage's body in `runtime.devices` processes; the manifest as process 0 left it.

    The launch is a process group of its own. Each process ends when the pipe it has for standard
    input does: whatever becomes of this process, SIGKILL included, none stays behind.
    Raises the UserError of a process that found one.
    """
    with TemporaryDirectory(prefix="recalign-launch-") as name:
        folder = Path(name)
        (folder / "order").write_bytes(pickle.dumps(order))
        with (folder / "errors").open("wb") as errors:
            launch = subprocess.Popen(
                _command(order.runtime, folder), env=_environment(order.runtime),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, text=True,
            )  # fmt: skip
            try:
                for line in launch.stdout or ():
                    _pass_on(line, progress)
                code = launch.wait()
            finally:
                _end(launch)
        outcomes = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("outcome-*"))]
        for outcome in outcomes:
            if isinstance(outcome, UserError):
                raise outcome
        if code or not outcomes:
            text = (folder / "errors").read_text(errors="replace")[-8000:]
            raise RuntimeError(f"{order.stage.name} failed on its devices ({code}):\n{text}")
        return outcomes[0]


def _command(runtime: Runtime, folder: Path) -> list[str]:
    threads = runtime.threads or max(1, (os.cpu_count() or 1) // runtime.devices)
    own = folder / "launch.yaml"  # else the user's own default would choose devices and machines
    own.write_text("distributed_type: MULTI_GPU\n")
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(own),
        "--multi_gpu", "--num_machines", "1",
        "--num_processes", str(runtime.devices), "--num_cpu_threads_per_process", str(threads),
        "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--module", "tasks.engine.launch", str(folder),
    ]  # fmt: skip


def _environment(runtime: Runtime) -> dict[str, str]:
    """This process's environment, and its import path: a launch runs the same code."""
    here = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return os.environ | here | {"ACCELERATE_USE_CPU": str(runtime.device == "cpu")}


def _pass_on(line: str, progress: Progress) -> None:
    """A line of process 0 is its progress; whatever else is printed goes to the log."""
    with suppress(ValueError, RecursionError):
        match json.loads(line):
            case [int() as done, int() as total, str() as note]:
                progress(done, total, note)
                return
    log.debug("%s", line.rstrip())


def _end(launch: "subprocess.Popen[str]") -> None:
    """End the launch if it runs: its processes by their pipe, then the launcher."""
    if launch.stdin:
        launch.stdin.close()
    try:
        launch.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        launch.kill()
        launch.wait()
    if launch.stdout:
        launch.stdout.close()


def _end_with_parent() -> None:
    """End this process, children and all, once nobody holds the other end of standard input."""
    os.read(0, 1)
    os._exit(1)


def _tell(done: int, total: int, note: str = "") -> None:
    print(json.dumps([done, total, note]), flush=True)


def main(folder: Path) -> None:
    """What each process of a launch does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from accelerate import PartialState  # after the thread: seconds to import

    order: Order = pickle.loads((folder / "order").read_bytes())
    processes = PartialState(cpu=order.runtime.device == "cpu")
    use_threads(order.runtime.threads)
    progress = _tell if processes.is_main_process else silent
    # A process of its own shares nothing further; the device is held for us.
    alone = order.runtime.model_copy(update={"devices": 1, "task_runner": "threads"})
    job = Job(order.draft, alone, progress, lambda: alone.device)
    outcome: Manifest | UserError
    try:
        order.stage.body(job, order.config, **order.inputs)
        outcome = job.draft.manifest
    except UserError as error:
        outcome = error
    (folder / f"outcome-{processes.process_index}").write_bytes(pickle.dumps(outcome))
    if isinstance(outcome, UserError):
        os._exit(1)  # the others may wait for this process: the launcher ends them
    processes.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
