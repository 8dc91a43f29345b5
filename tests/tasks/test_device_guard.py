"""One process computes on a device at a time; a killed one blocks nobody; cached stages never wait.

What is locked here is the processor (`exclusive = "always"`): the lock is the same for a GPU.
"""

import gc
import os
import subprocess
import sys
import threading
import weakref
from ctypes.util import find_library

import pytest

from recalign.artifacts.manifest import Reference
from recalign.config import Config, Runtime
from recalign.errors import UserError
from tasks.engine.device import device_lock, device_of
from tasks.engine.stage import Call, Stage

HOLDER = """
import logging, sys, time
from recalign.artifacts.manifest import Reference
from recalign.config import Runtime
from tasks.engine.device import device_of
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
with device_of(Runtime(device="cpu", exclusive="always"), "oracle") as device:
    print("asking", flush=True)
    print("has", device(), flush=True)
    time.sleep(120)
"""


class Nothing(Config):
    """A stage without settings."""


@pytest.fixture
def own_locks(tmp_path, monkeypatch):
    """A folder for temporary files of this test's own, for this process and those it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def start():
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=os.environ
    )


@pytest.mark.slow
def test_a_second_process_waits_until_the_first_is_gone_even_when_it_was_killed(own_locks):
    first = start()
    assert [first.stdout.readline() for _ in range(2)] == ["asking\n", "has cpu\n"]
    second = start()
    try:
        assert second.stdout.readline() == "asking\n"
        waiting = "oracle waits for the cpu: another run computes on it\n"
        assert second.stdout.readline() == waiting
        first.kill()
        assert second.stdout.readline() == "oracle has the cpu now\n"
        assert second.stdout.readline() == "has cpu\n"
    finally:
        for process in (first, second):
            process.kill()
            process.wait(30)


def asks_for_its_device(job, config):
    (job.draft.path("device.txt")).write_text(job.device)
    job.draft.count(1)


def computed(root, exclusive):
    """The stage's artifact, in a thread; None: it has waited for the device for two seconds."""
    stage = Stage("probe", 1, asks_for_its_device)
    runtime = Runtime(root=str(root), device="cpu", exclusive=exclusive)
    made: list[Reference] = []
    call = Call(stage.identity(Nothing(), {}, {}), Nothing(), {}, {}, runtime)
    worker = threading.Thread(target=lambda: made.append(stage.compute(call)), daemon=True)
    worker.start()
    worker.join(2 if exclusive == "always" else 60)  # the first one imports torch
    return (made[0] if made else None), worker


def test_a_stage_waits_for_its_device_only_when_it_computes(own_locks, tmp_path):
    with device_lock("cpu"):
        reference, _ = computed(tmp_path / "shared", "auto")  # a processor is shared
        assert reference is not None
        assert computed(tmp_path / "shared", "always")[0] == reference  # cached
        waiting, worker = computed(tmp_path / "alone", "always")
        assert waiting is None
        assert computed(tmp_path / "unguarded", "never")[0] is not None
    worker.join(60)
    assert len(list((tmp_path / "alone/probe").glob("[!.]*/device.txt"))) == 1


def test_an_error_that_is_kept_keeps_no_model_in_memory(own_locks):
    class Model:
        pass

    seen: list[weakref.ref[Model]] = []

    def train() -> None:
        model = Model()
        seen.append(weakref.ref(model))
        raise MemoryError("in the first step")

    def explained() -> None:
        try:
            train()
        except MemoryError as error:
            raise UserError("lower the batch size") from error

    with pytest.raises(UserError) as kept, device_of(Runtime(device="cpu"), "alignment"):
        explained()
    gc.collect()
    assert kept.value.__cause__ is not None
    assert seen[0]() is None


FREED = """
import numpy, psutil
from recalign.config import Runtime
from tasks.engine.device import device_of
process = psutil.Process()
before = process.memory_info().rss
with device_of(Runtime(device="cpu"), "alignment") as device:
    device()
    arrays = [numpy.ones(12_000) for _ in range(3_000)]
    del arrays[:-1]  # the last one lies on top of what the C library could give back by itself
    held = process.memory_info().rss - before
print(held, process.memory_info().rss - before)
"""


TCMALLOC = pytest.param(
    "libtcmalloc_minimal.so.4",
    marks=pytest.mark.skipif(
        not find_library("tcmalloc_minimal") and not os.environ.get("CI"),
        reason="needs the library tcmalloc_minimal",
    ),
)


@pytest.mark.skipif(sys.platform != "linux", reason="two ways of Linux to give memory back")
@pytest.mark.parametrize("allocator", ["", TCMALLOC])
def test_memory_that_a_stage_has_freed_goes_back_to_the_machine(allocator):
    told = subprocess.run(
        [sys.executable, "-c", FREED],
        env=os.environ | {"LD_PRELOAD": allocator},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "LD_PRELOAD" not in told.stderr  # the loader's complaint about a library it lacks
    held, after = map(int, told.stdout.split())
    assert held > 200e6
    assert after < 100e6


def test_a_stage_that_asks_for_no_device_takes_none(own_locks):
    with (
        device_of(Runtime(device="cpu", exclusive="always"), "pairs"),
        device_lock("cpu").acquire(timeout=0) as taken,
    ):
        assert taken.is_locked
