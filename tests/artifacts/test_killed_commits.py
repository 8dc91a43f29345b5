"""A kill while a finished draft is renamed loses neither what was computed nor its checkpoints."""

import signal
import subprocess
import sys

import pytest

from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Store
from recalign.config import OracleConfig, Runtime
from tasks.engine.stage import Call, Stage

IDENTITY = Identity("oracle", 1, {"hidden": 64}, {"splits": "f"}, {})
INPUTS = {"splits": Reference(stage="splits", fingerprint="f", digest="one")}

COMMIT = """
import os, pathlib, signal, sys
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Store

inputs = {"splits": Reference(stage="splits", fingerprint="f", digest="one")}
store, left = Store(sys.argv[1]), int(sys.argv[2])

def made(text):
    draft = store.draft(Identity("oracle", 1, {"hidden": 64}, {"splits": "f"}, {}), inputs)
    (draft.work / "checkpoint").write_text("the last epoch")
    draft.path("model/weights.txt").write_text(text)
    return store.commit(draft)

rename = pathlib.Path.rename

def renamed(path, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(path, target)

made("old")
pathlib.Path.rename = renamed
made("new")
"""
RENAMES = 3  # checkpoints away, the old artifact away, the draft in its place


def killed_at(store, rename):
    """A process that replaces an artifact, and is killed just before this rename."""
    command = [sys.executable, "-c", COMMIT, str(store.root), str(rename)]
    return subprocess.run(command, check=False, timeout=120).returncode


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "root")


def stage(computed):
    def oracle(job, config, **artifacts):
        computed.append("oracle")
        job.draft.path("model/weights.txt").write_text("computed again")

    return Stage("oracle", 1, oracle)


@pytest.mark.parametrize("rename", range(RENAMES))
def test_what_was_whole_when_its_run_was_killed_is_not_computed_again(store, rename):
    assert killed_at(store, rename) == -signal.SIGKILL
    computed: list[str] = []
    call = Call(IDENTITY, OracleConfig(), INPUTS, {}, Runtime(root=str(store.root)), force=True)
    reference = stage(computed)._made(store, call)
    assert computed == []
    assert store.open(reference).path("model/weights.txt").read_text() == "new"
    assert [path.name for path in (store.root / "oracle").iterdir()] == [reference.fingerprint]
    assert not list(store.folder("oracle", reference.fingerprint).glob("work"))


def test_a_commit_has_no_further_rename(store):
    assert killed_at(store, RENAMES) == 0


def test_what_was_made_from_other_content_is_not_taken(store):
    killed_at(store, RENAMES - 1)
    newer = {"splits": INPUTS["splits"].model_copy(update={"digest": "two"})}
    assert store.finish(IDENTITY, newer) is None
    assert store.finish(IDENTITY, INPUTS)


def test_a_draft_that_was_damaged_since_is_not_taken(store):
    killed_at(store, RENAMES - 1)
    [weights] = store.root.glob("oracle/.draft-*/model/weights.txt")
    weights.write_text("old")
    assert store.finish(IDENTITY, INPUTS) is None


def test_half_a_draft_is_not_taken(store):
    store.draft(IDENTITY, INPUTS).path("model/weights.txt").write_text("hal")
    assert store.finish(IDENTITY, INPUTS) is None
