"""An artifact exists when its manifest does, and is found only while its files are intact."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import polars as pl
import pytest

from recalign.artifacts.digests import write_atomically
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Reference, fingerprints
from recalign.artifacts.provenance import peak_gpu_memory_mb, peak_memory_mb
from recalign.artifacts.store import Store
from recalign.errors import UserError
from recalign.schemas import USERS


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


@pytest.mark.parametrize("name", ["._weights.txt", "model/.nfs0000012"])
def test_what_a_file_system_hides_in_a_draft_is_no_part_of_the_artifact(store, name):
    draft = drafted(store)
    draft.path("model/weights.txt").write_text("hours of work")
    draft.path(name).write_text("made by the system")
    artifact = store.commit(draft)
    assert set(artifact.manifest.outputs) == {"model/weights.txt"}
    assert store.find("oracle", artifact.manifest.fingerprint)
    assert not store.without_manifest()


def test_a_root_with_brackets_in_its_name_gives_its_tables(tmp_path):
    store = Store(tmp_path / "a[1]*?")
    draft = drafted(store)
    table = pl.DataFrame({"user_index": [0], "user_id": ["u"]}, schema=USERS)
    USERS.write(table, draft)
    assert USERS.read(store.open(store.commit(draft).reference)).equals(table)


def test_peak_memory_is_in_megabytes_where_the_system_counts_bytes_too(monkeypatch):
    used = SimpleNamespace(ru_maxrss=3 * 2**30)
    monkeypatch.setattr(resource, "getrusage", lambda who: used)
    for system, megabytes in (("darwin", 3 * 2**10), ("linux", 3 * 2**20)):
        monkeypatch.setattr(sys, "platform", system)
        assert peak_memory_mb() == megabytes


def test_the_peak_of_a_gpu_is_that_of_the_fullest_one_and_nothing_without_one(monkeypatch):
    held = [2**20, 7 * 2**20]
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, max_memory_allocated=held.__getitem__
    )
    for torch, megabytes in (
        (SimpleNamespace(cuda=cuda), 7.0),
        (SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False)), 0.0),
        (None, 0.0),
    ):
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert peak_gpu_memory_mb() == megabytes


def test_processes_of_one_number_write_the_same_file_at_once(tmp_path, monkeypatch):
    """Containers that share a root have the same process ids."""
    path, together = tmp_path / "note.json", threading.Barrier(2, timeout=60)
    real, broken = os.fsync, []

    def fsync(handle):
        together.wait()
        real(handle)

    def write(text):
        try:
            write_atomically(path, text)
        except OSError as error:
            broken.append(error)

    monkeypatch.setattr(os, "fsync", fsync)
    writers = [threading.Thread(target=write, args=(text * 4000,)) for text in "ab"]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert not broken
    assert path.read_text() in ("a" * 4000, "b" * 4000)


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
        patched.setattr("recalign.artifacts.sealing.write_atomically", full)
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


def test_a_reference_to_content_that_was_computed_anew_since_opens_nothing(store):
    old, again = made(store), made(store, text="other")
    told = rf"{old.reference.name} was computed anew since, .*: run the method again"
    with pytest.raises(UserError, match=told):
        store.open(old.reference)
    named = old.reference.model_copy(update={"digest": ""})  # as series name their stages
    assert store.open(named).manifest == again.manifest


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


GARBLED = [
    b"",
    b"[]",
    b"null",
    b"\xff{}",
    b'{"table.txt": 3}',
    b'{"table.txt": null}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("garbled", GARBLED)
def test_garbled_stamps_digests_and_inputs_are_no_memory(store, tmp_path, garbled):
    artifact = made(store)
    (artifact.folder / ".stamps.json").write_bytes(garbled)
    assert store.find("splits", artifact.manifest.fingerprint).manifest == artifact.manifest
    raw = tmp_path / "raw.csv"
    raw.write_text("abc")
    (store.root / ".digests.json").write_bytes(garbled.replace(b"table.txt", str(raw).encode()))
    assert store.digests.digest(raw) == hashlib.sha256(b"abc").hexdigest()
    inputs = {"splits": artifact.reference}
    draft = drafted(store, inputs=inputs)
    (draft.work / "checkpoint").write_text("half")
    (draft.work / ".inputs.json").write_bytes(garbled)
    assert not (drafted(store, inputs=inputs).work / "checkpoint").exists()


def test_a_manifest_whose_time_has_no_zone_or_whose_figures_were_edited_is_not_used(store):
    artifact = made(store)
    path, key = artifact.folder / "manifest.json", artifact.manifest.fingerprint
    whole = json.loads(path.read_text())
    changes: list[dict[str, object]] = [
        {"created": "2026-01-01T00:00:00"}, {"rows": 2}, {"dropped": {}}, {"figures": {"items": 7}},
    ]  # fmt: skip
    for change in changes:
        path.write_text(json.dumps(whole | change))
        assert store.find("splits", key) is None, change
        assert len(list(store.manifests())) == ("created" not in change)
    earlier = {name: value for name, value in whole.items() if name != "told"}
    path.write_text(json.dumps(earlier))  # as versions wrote it that kept no digest of figures
    assert store.find("splits", key) is not None


def test_figures_that_json_changes_are_still_those_that_were_written(store):
    draft = drafted(store, "splits")
    draft.path("table.txt").write_text("x")
    draft.tell({"pair": (1, 2), "nan": float("nan"), "tenth": 0.1, "by number": {3: 1e300}})
    made = store.commit(draft)
    assert store.find("splits", made.manifest.fingerprint) is not None


@pytest.mark.parametrize("pattern", ["*", "spl?ts", "**", "/tmp/splits", "..", "sp[l]its"])
def test_a_stage_is_a_name_and_no_pattern_or_path(store, pattern):
    made(store)
    assert list(store.manifests(pattern)) == []


def test_what_a_killed_commit_left_is_cleared_by_the_next(store):
    folder = made(store).folder
    own, other = (folder.with_name(f".trash-{key}-99") for key in (folder.name, 32 * "0"))
    for left in (own, other):
        (left / "replaced").mkdir(parents=True)
    made(store)
    assert not own.exists()
    assert (other / "replaced").exists()  # another artifact's commit may be under way


def test_a_link_in_a_draft_is_removed_and_not_followed(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept.txt").write_text("mine")
    drafted(store).path("link").symlink_to(tmp_path / "mine")
    assert not drafted(store).path("link").exists()
    assert (tmp_path / "mine" / "kept.txt").exists()


AS_NOBODY = """
import os, sys
from recalign.artifacts.store import Store
from recalign.errors import UserError
os.setuid(65534)
try:
    store = Store(sys.argv[1])
    with store.in_use():
        print(store.find("splits", sys.argv[2]) is not None)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can read a root as somebody else")
def test_another_users_root_is_read_where_it_may_be_and_told_in_one_line_where_not(store, tmp_path):
    key = made(store).manifest.fingerprint
    for folder in (tmp_path, *tmp_path.parents[:3]):  # with workers, pytest's folder is one further
        if folder.name.startswith(("pytest-", "popen-", "test_")):
            folder.chmod(0o755)
    read = [sys.executable, "-c", AS_NOBODY, str(store.root), key]
    run = subprocess.run(read, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr
    (store.root / "splits").chmod(0o700)
    run = subprocess.run(read, capture_output=True, text=True)
    assert run.stdout.startswith("runtime.root: cannot read"), run.stderr
    assert run.stdout.count("\n") == 1
