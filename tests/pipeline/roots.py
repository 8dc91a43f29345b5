"""What the tests of this folder read off an artifact root, and how they kill a run in mid-stage."""

import json
import os
import signal
import time


def manifests(root):
    """Every complete artifact: (stage, fingerprint) -> (digest, when it was made)."""
    found = {}
    for path in root.glob("[!.]*/[!.]*/manifest.json"):
        manifest = json.loads(path.read_text())
        found[manifest["stage"], manifest["fingerprint"]] = manifest["digest"], manifest["created"]
    return found


def digest_of(root, stage, fingerprint):
    return json.loads((root / stage / fingerprint / "manifest.json").read_text())["digest"]


def wait_for_work(draft, process):
    """Until the stage has written something it could continue from; a draft's name may have a *."""
    deadline = time.monotonic() + 300
    while not [p for p in draft.parent.glob(f"{draft.name}/work/**/*") if p.is_file() and saved(p)]:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def saved(path):
    return path.suffix in (".ckpt", ".pt", ".safetensors", ".parquet", ".npz", ".bin")


def kill_at_work(recalign, root, stage, fingerprint, command):
    """Start a run and SIGKILL it once that stage has something to continue from.

    `fingerprint` may be a pattern.
    """
    process = recalign.start(*command)
    draft = root / stage / f".draft-{fingerprint}"
    wait_for_work(draft, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert len(list(draft.parent.glob(draft.name))) == 1
    assert not (root / stage / fingerprint).exists()
