"""Alignment in two processes: the weights of one, no process left, resumed after a kill."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from recalign.alignment.rows import held_out
from recalign.artifacts.store import Store
from recalign.config import AlignmentConfig, Runtime, SplitsConfig
from recalign.errors import UserError
from recalign.schemas import COMPLETIONS
from tasks.alignment import alignment
from tasks.engine.launch import _pass_on
from tasks.engine.stage import Call
from tests.tasks.launched_stages import mistaken, spreading

pytestmark = pytest.mark.slow
SETTINGS = AlignmentConfig(
    lora_rank=4, epochs=2, evaluations=4, batch_size=8, micro_batch_size=4, held_out=0.3
)


def heads(table):
    return (table.head(n) for n in range(table.height, 2 * SETTINGS.batch_size, -1))


def fills_batches(table):
    held = held_out(table["user_index"].to_numpy(), SETTINGS.held_out, SETTINGS.seed)
    return held.sum() % SETTINGS.batch_size == 0 == (~held).sum() % SETTINGS.batch_size


@pytest.fixture(scope="module")
def inputs(finished):
    """Policy 0 and as many pairs as fill whole batches, in the finished run's root.

    Processes fill up an incomplete last batch with rows from the start: there results differ.
    """
    store = finished.store
    made = finished.artifact("pairs, round 1")
    table = COMPLETIONS.read(made)
    table = next(shorter for shorter in heads(table) if fills_batches(shorter))
    identity = replace(made.manifest.identity, files={"only so many": str(table.height)})
    draft = store.draft(identity, made.manifest.inputs)
    COMPLETIONS.write(table, draft)
    return {"start": finished.done["policy"], "completions": store.commit(draft).reference}


def runtime(store, devices):
    return Runtime(root=str(store.root), device="cpu", threads=1, devices=devices)


def call_of(store, inputs, devices):
    identity = alignment.identity(SETTINGS, inputs, {})
    return Call(identity, SETTINGS, inputs, {}, runtime(store, devices))


def train(store, inputs, devices):
    """The artifact of one alignment, computed here; the root has none of these settings after."""
    call = replace(call_of(store, inputs, devices), force=True)
    made = store.open(alignment.compute(call))
    weights = load_file(made.path("adapter/adapter_model.safetensors"))
    store.discard("alignment", made.manifest.fingerprint)
    return made.manifest, weights


@pytest.fixture(scope="module")
def by_two(finished, inputs):
    return train(finished.store, inputs, 2)


def test_two_processes_train_what_one_trains(finished, inputs, by_two):
    alone, weights = train(finished.store, inputs, 1)
    launched, shared = by_two
    assert launched.fingerprint == alone.fingerprint
    assert launched.rows == alone.rows > SETTINGS.batch_size
    assert alone.figures["steps"] >= 4
    for name in ("steps", "best_step", "held_out_pairs"):
        assert launched.figures[name] == alone.figures[name]
    for name in ("held_out_loss_start", "held_out_loss"):
        assert launched.figures[name] == pytest.approx(alone.figures[name], rel=1e-5)
    learned = max(w.abs().max().item() for n, w in weights.items() if "lora_B" in n)
    assert learned > 1e-3  # it starts at zero
    for name, weight in weights.items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-3, atol=learned / 1000)


def test_a_killed_launch_leaves_no_process_and_continues(finished, inputs, by_two, tmp_path):
    """SIGKILL to the one process that nobody can prepare for: the one that launched."""
    store = Store(finished.store.root)
    fingerprint = by_two[0].fingerprint
    (tmp_path / "call").write_bytes(pickle.dumps(call_of(store, inputs, 2)))
    script = (
        "import pathlib, pickle\nfrom tasks.alignment import alignment\n"
        f"alignment.compute(pickle.loads(pathlib.Path({str(tmp_path)!r}, 'call').read_bytes()))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    training = store.root / "alignment" / f".draft-{fingerprint}" / "work" / "training"
    deadline = time.monotonic() + 300
    while not list(training.glob("checkpoint-*/complete.json")):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len([one for one in children if "tasks.engine.launch" in one.cmdline()]) >= 3
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert not (store.root / "alignment" / fingerprint).exists()
    started = min(p.stat().st_mtime for p in training.glob("checkpoint-*/complete.json"))
    again, weights = train(store, inputs, 2)
    assert started < again.created.timestamp()
    assert again.digest == by_two[0].digest
    assert all(torch.equal(weights[name], by_two[1][name]) for name in weights)


def test_what_a_library_prints_is_no_progress_and_ends_nothing():
    told = []
    for line in ("0", "null", "[]", "[1, 2]", "{}", "loss 0.3", '[1, 4, "pairs"]'):
        _pass_on(f"{line}\n", lambda *given: told.append(given))
    assert told == [(1, 4, "pairs")]


def test_a_mistake_that_a_launched_process_finds_is_told_as_one(tmp_path, monkeypatch):
    of_the_user = tmp_path / "accelerate" / "default_config.yaml"  # as `accelerate config` leaves
    of_the_user.parent.mkdir()
    of_the_user.write_text("distributed_type: MULTI_GPU\ngpu_ids: '0'\nmachine_rank: 1\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    settings, how = SplitsConfig(), runtime(Store(tmp_path), 2)
    call = Call(mistaken.identity(settings, {}, {}), settings, {}, {}, how)
    with pytest.raises(UserError, match=r"^process 1 of 2 has no such setting$"):
        mistaken.compute(call)
    assert not list(Store(tmp_path).manifests())


def test_a_launched_process_spreads_nothing_over_the_devices_that_the_launch_has(tmp_path):
    settings, store = SplitsConfig(), Store(tmp_path)
    call = Call(spreading.identity(settings, {}, {}), settings, {}, {}, runtime(store, 2))
    assert store.open(spreading.compute(call)).manifest.figures == {"spreads": False, "of": 2}
