"""A run that is killed inside a long stage continues there and ends with the same artifact."""

import json
import os
import shutil
import signal
import time

import pytest

RUN = ("run", "dpo4rec", "--preset", "tiny")
LABELS = {
    "oracle": "oracle",
    "policy": "policy",
    "reasonings": "reasonings for reward, base",
    "alignment": "alignment, round 1",
}


def digest_of(root, stage, fingerprint):
    return json.loads((root / stage / fingerprint / "manifest.json").read_text())["digest"]


def first_fingerprint(root, stage):
    """The stage's artifact that a run up to LABELS[stage] makes."""
    found = [json.loads(p.read_text()) for p in root.glob(f"{stage}/[!.]*/manifest.json")]
    wanted = [
        m for m in found
        if "alignment" not in m["inputs"] and "previous" not in m["inputs"]
        and m["config"].get("phase", "reward") == "reward"
    ]  # fmt: skip
    assert len(wanted) == 1
    return wanted[0]["fingerprint"]


def wait_for_work(draft, process):
    """Until the stage has written something it could continue from."""
    deadline = time.monotonic() + 300
    while not [p for p in (draft / "work").rglob("*") if p.is_file() and saved(p)]:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def saved(path):
    return path.suffix in (".ckpt", ".pt", ".safetensors", ".parquet", ".npz", ".bin")


@pytest.mark.parametrize("stage", list(LABELS))
def test_sigkill_loses_no_finished_work(recalign, finished, tmp_path, stage):
    fingerprint = first_fingerprint(finished, stage)
    root = shutil.copytree(finished, tmp_path / "artifacts")
    shutil.rmtree(root / stage / fingerprint)
    command = (*RUN, "--root", str(root), "--stop-after", LABELS[stage],
               "--set", "runtime.shard_users=24")  # fmt: skip
    process = recalign.start(*command)
    draft = root / stage / f".draft-{fingerprint}"
    wait_for_work(draft, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert draft.is_dir()
    assert not (root / stage / fingerprint).exists()
    recalign(*command)
    assert digest_of(root, stage, fingerprint) == digest_of(finished, stage, fingerprint)
    assert not list(root.glob("*/.draft-*"))


def test_two_runs_at_once_compute_each_stage_once(recalign, finished, tmp_path):
    root = tmp_path / "artifacts"
    command = (*RUN, "--root", str(root), "--stop-after", "oracle")
    both = [recalign.start(*command) for _ in range(2)]
    assert [process.wait(600) for process in both] == [0, 0]
    for stage in ("interactions", "splits", "oracle"):
        assert len(list(root.glob(f"{stage}/*"))) == 1
    fingerprint = first_fingerprint(finished, "oracle")
    assert digest_of(root, "oracle", fingerprint) == digest_of(finished, "oracle", fingerprint)
