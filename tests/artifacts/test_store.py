"""An artifact exists when its manifest does, and is found only while its files are intact."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Reference, fingerprints
from recalign.artifacts.store import Store
from recalign.errors import UserError


def drafted(store: Store, stage="oracle", config=None, inputs=None):
    inputs = inputs or {}
    return store.draft(Identity(stage, 1, config or {"a": 1}, fingerprints(inputs), {}), inputs)


def made(store: Store, text="hello", config=None, inputs=None):
    draft = drafted(store, "splits", config or {"a": 1}, inputs)
    draft.path("table.txt").write_text(text)
    draft.path("model/weights.txt").write_text(text * 2)
    draft.count(3, {"too short": 2, "none": 0})
    return store.commit(draft)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "root")


def test_a_committed_draft_is_found_with_its_counts_and_digests(store):
    artifact = made(store)
    found = store.find("splits", artifact.manifest.fingerprint)
    assert found.manifest.rows == 3
    assert found.manifest.dropped == {"too short": 2}
    assert set(found.manifest.outputs) == {"table.txt", "model/weights.txt"}
    assert found.path("table.txt").read_text() == "hello"


def test_equal_content_has_an_equal_digest_whenever_it_is_made(tmp_path):
    first, second = made(Store(tmp_path / "a")), made(Store(tmp_path / "b"))
    assert first.manifest.digest == second.manifest.digest
    assert made(Store(tmp_path / "c"), text="other").manifest.digest != first.manifest.digest


@pytest.mark.parametrize("harm", ["delete", "flip", "shorten", "manifest", "garble"])
def test_a_damaged_artifact_is_not_found(store, harm):
    artifact = made(store)
    path = artifact.path("table.txt")
    if harm == "delete":
        path.unlink()
    elif harm == "flip":
        path.write_text("jello")
    elif harm == "shorten":
        path.write_text("h")
    elif harm == "manifest":
        (artifact.folder / "manifest.json").unlink()
    else:
        (artifact.folder / "manifest.json").write_text("{")
    assert store.find("splits", artifact.manifest.fingerprint) is None
    with pytest.raises(UserError, match="missing or damaged"):
        store.open(artifact.reference)


def test_a_touched_but_equal_file_is_hashed_again_and_trusted(store):
    artifact = made(store)
    later = time.time() + 100
    os.utime(artifact.path("table.txt"), (later, later))
    assert store.find("splits", artifact.manifest.fingerprint) is not None


def test_only_a_full_hash_sees_a_flip_that_hides_its_time(store):
    artifact = made(store)
    path = artifact.path("table.txt")
    status = path.stat()
    path.write_text("jello")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.damage(artifact.folder, artifact.manifest, rehash=True)


def test_a_killed_draft_keeps_its_work_and_loses_its_half_written_outputs(store):
    draft = drafted(store)
    (draft.work / "checkpoint").write_text("epoch 3")
    draft.path("half.txt").write_text("hal")
    again = drafted(store)
    assert (again.work / "checkpoint").read_text() == "epoch 3"
    assert not (again.folder / "half.txt").exists()
    assert "work" not in str(store.commit(again).manifest.outputs)


def test_checkpoints_made_from_other_content_of_an_input_are_not_continued(store):
    first = Reference(stage="splits", fingerprint="f", digest="one")
    draft = drafted(store, inputs={"splits": first})
    (draft.work / "checkpoint").write_text("epoch 3")
    changed = first.model_copy(update={"digest": "two"})
    again = drafted(store, inputs={"splits": changed})
    assert again.folder == draft.folder
    assert not (again.work / "checkpoint").exists()


def test_the_lock_of_a_killed_process_blocks_nobody(store, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from recalign.artifacts.store import Store\n"
        "Store(sys.argv[1]).lock('oracle', 'k').acquire()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert killed.returncode == -9
    with store.lock("oracle", "k").acquire(timeout=1):
        pass


def test_differences_name_the_fields():
    store_config = {"beta": 0.1, "lora": {"rank": 8}}
    old = Identity("alignment", 1, store_config, {"pairs": "a" * 32}, {})
    new = Identity("alignment", 1, store_config | {"beta": 0.2}, {"pairs": "b" * 32}, {})
    assert old.differences(new) == [
        "config.beta: 0.1 -> 0.2",
        "inputs.pairs: aaaaaaaaaa -> bbbbbbbbbb",
    ]


def test_an_identity_read_back_from_its_manifest_is_the_same(store):
    artifact = made(store, config={"beta": 0.1, "k": [1, 5], "name": "x"})
    manifest = store.manifest("splits", artifact.manifest.fingerprint)
    fresh = Identity("splits", 1, {"beta": 0.1, "k": [1, 5], "name": "x"}, {}, {})
    assert manifest.identity == fresh
    assert manifest.identity.differences(fresh) == []
    assert fresh.fingerprint == manifest.fingerprint
    assert json.loads(manifest.model_dump_json())["config"]["beta"] == 0.1


def test_an_unwritable_root_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"runtime\.root"):
        Store(tmp_path / "file" / "root")


def test_a_manifest_that_was_edited_or_moved_is_no_manifest(store):
    artifact = made(store)
    key, path = artifact.manifest.fingerprint, artifact.folder / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"a":1', '"a":2').replace('"a": 1', '"a": 2'))
    assert path.read_text() != text
    assert store.find("splits", key) is None
    shown = json.loads(text)
    del shown["outputs"]["table.txt"]
    path.write_text(json.dumps(shown))
    assert store.find("splits", key) is None
    path.write_text(text)
    assert store.find("splits", key) is not None
    artifact.folder.rename(artifact.folder.with_name("0" * 32))
    assert store.find("splits", "0" * 32) is None


def test_a_disk_that_is_full_at_commit_costs_no_checkpoint(store, monkeypatch):
    draft = drafted(store)
    (draft.work / "checkpoint").write_text("epoch 3")
    draft.path("table.txt").write_text("hello")

    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("recalign.artifacts.store.write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            store.commit(draft)
    again = drafted(store)
    assert (again.work / "checkpoint").read_text() == "epoch 3"
    again.path("table.txt").write_text("hello")
    assert set(store.commit(again).manifest.outputs) == {"table.txt"}
    assert [path.name for path in (store.root / "oracle").iterdir()] == [again.manifest.fingerprint]


def test_an_artifact_made_anew_replaces_the_old_one(store):
    old = made(store)
    again = made(store, text="other")
    assert old.folder == again.folder
    assert store.open(again.reference).path("table.txt").read_text() == "other"
    assert [path.name for path in (store.root / "splits").iterdir()] == [old.folder.name]


def test_garbage_collection_is_not_alone_while_a_run_uses_the_root_even_between_stages(tmp_path):
    store = Store(tmp_path)
    with store.in_use(), Store(tmp_path).alone() as free:
        assert not free
    with store.alone() as free:
        assert free
    assert not list((tmp_path / ".locks").glob("run-*"))


def test_a_run_starts_only_when_garbage_collection_is_done(tmp_path):
    order = []

    def run() -> None:
        with Store(tmp_path).in_use():
            order.append("run")

    with Store(tmp_path).alone() as free:
        assert free
        started = threading.Thread(target=run)
        started.start()
        started.join(0.3)
        order.append("collected")
    started.join(30)
    assert order == ["collected", "run"]


def test_a_killed_run_keeps_garbage_collection_away_no_longer(tmp_path):
    code = (
        "import sys, time; from recalign.artifacts.store import Store\n"
        "with Store(sys.argv[1]).in_use():\n    print('in', flush=True); time.sleep(300)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert run.stdout
    assert run.stdout.readline() == b"in\n"
    with Store(tmp_path).alone() as free:
        assert not free
    run.kill()
    run.wait(30)
    with Store(tmp_path).alone() as free:
        assert free
    assert not list((tmp_path / ".locks").glob("run-*"))


def test_a_root_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / ".locks").write_text("in the way, as a read-only disk would be")
    with (
        pytest.raises(UserError, match=r"runtime\.root: cannot write to"),
        Store(tmp_path).in_use(),
    ):
        pytest.fail("never entered")
