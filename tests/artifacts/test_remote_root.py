"""Artifacts on S3: published whole or not at all, fetched on trust in digests alone, one lock."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import Timeout

from recalign.artifacts import claims
from recalign.artifacts.identity import Identity
from recalign.artifacts.remote import Remote
from recalign.artifacts.roots import RemoteStore, open_root
from recalign.artifacts.sweep_notes import forget_sweep, note_sweep
from recalign.config import OracleConfig, Runtime
from recalign.errors import UserError
from tasks.engine.stage import Call, Stage


@pytest.fixture
def machine(s3, tmp_path, monkeypatch):
    """machine("a"): the store at s3://bucket/root as the machine of that name sees it."""

    def see(name):
        monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / name))
        return RemoteStore("s3://bucket/root")

    return see


def commit(store, text="weights", stage="oracle"):
    draft = store.draft(Identity(stage, 1, {"hidden": 64}, {}, {}), {})
    draft.path("model/weights.bin").write_text(text)
    draft.path("curve.txt").write_text("1 2 3")
    return store.commit(draft)


def test_what_one_machine_commits_another_finds(machine):
    made = commit(machine("a"))
    other = machine("b")
    key = made.manifest.fingerprint
    assert other.known("oracle", key) == made.manifest
    assert not other.folder("oracle", key).exists()  # a plan fetches nothing
    assert [m.reference for m in other.manifests()] == [made.reference]
    found = other.open(made.reference)
    assert found.folder.is_relative_to(other.root)
    assert found.path("model/weights.bin").read_text() == "weights"
    assert found.manifest == made.manifest
    assert not other.check(found.manifest)
    assert not list(other.root.glob("*/.fetch-*"))


@pytest.mark.parametrize("name", ["a[1]", "a b", "ü"])
def test_a_root_is_listed_whatever_its_name(tmp_path, monkeypatch, name):
    url = f"file://{tmp_path / name}"
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "one"))
    made = commit(RemoteStore(url))
    note_sweep(RemoteStore(url), "mine", [made.reference])
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "another"))
    store = RemoteStore(url)
    assert [m.reference for m in store.manifests()] == [made.reference]
    assert store.notes(".sweeps") == [".sweeps/mine.json"]


def test_an_upload_cut_in_the_middle_is_no_artifact_and_is_made_up_for(machine, s3):
    first = machine("a")
    made = commit(first)
    key = made.manifest.fingerprint
    (made.folder / "model" / "weights.bin").rename(made.folder / "elsewhere")
    with pytest.raises(UserError, match=r"weights\.bin"):
        first.remote.publish(made.folder, made.manifest)
    assert s3.exists(f"bucket/root/oracle/{key}/curve.txt")
    second = machine("b")
    assert second.find("oracle", key) is None
    assert list(second.manifests()) == []
    (made.folder / "elsewhere").rename(made.folder / "model" / "weights.bin")
    (made.folder / ".published").unlink()  # as a run killed before the end leaves it
    assert first.find("oracle", key)
    assert second.find("oracle", key).manifest == made.manifest


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_file_there_is_told_not_used_and_mended_by_the_next_commit(machine, s3, harm):
    made = commit(machine("a"))
    place = f"bucket/root/oracle/{made.manifest.fingerprint}"
    match harm:
        case "flip":
            s3.pipe_file(f"{place}/model/weights.bin", b"weighty")
        case "truncate":
            s3.pipe_file(f"{place}/model/weights.bin", b"")
        case "delete":
            s3.rm(f"{place}/model/weights.bin")
        case "manifest":
            s3.pipe_file(f"{place}/manifest.json", b'{"stage": "oracle"')
    other = machine("b")
    assert other.find("oracle", made.manifest.fingerprint) is None
    if harm != "manifest":
        assert "weights.bin" in other.check(made.manifest)[0]
    again = commit(other)
    assert again.reference == made.reference
    assert machine("c").open(made.reference).path("model/weights.bin").read_text() == "weights"
    assert not other.check(made.manifest)


def test_a_damaged_copy_is_fetched_again(machine):
    made = commit(machine("a"))
    other = machine("b")
    copy = other.open(made.reference)
    copy.path("curve.txt").write_text("1 2 4")
    assert other.open(made.reference).path("curve.txt").read_text() == "1 2 3"


def test_a_copy_of_what_was_deleted_there_is_published_again_by_whoever_uses_it(machine):
    made = commit(machine("a"))
    key = made.manifest.fingerprint
    assert machine("b").find("oracle", key)
    machine("a").discard("oracle", key)
    assert machine("b").known("oracle", key) == made.manifest
    assert machine("c").find("oracle", key) is None  # a plan publishes nothing
    assert machine("b").find("oracle", key)
    assert machine("c").find("oracle", key).manifest == made.manifest


def test_a_copy_of_what_was_computed_anew_elsewhere_is_exchanged(machine):
    made = commit(machine("a"))
    key = made.manifest.fingerprint
    assert machine("b").find("oracle", key)
    commit(machine("a"), "other weights")
    again = machine("b")
    assert again.known("oracle", key).digest != made.manifest.digest
    assert again.find("oracle", key).path("model/weights.bin").read_text() == "other weights"


@pytest.fixture
def slow_copies(monkeypatch):
    """Copying takes a moment, as it does with files of a real size; told: folders copied to."""
    fetch, into = Remote.fetch, []

    def slowly(remote, stage, key, manifest, folder):
        into.append(folder)
        fetch(remote, stage, key, manifest, folder)
        time.sleep(0.3)

    monkeypatch.setattr(Remote, "fetch", slowly)
    return into


def all_at_once(work, n=6):
    """What `work()` gives in n threads that start together."""
    together = threading.Barrier(n)

    def begin():
        together.wait(30)
        return work()

    with ThreadPoolExecutor(n) as pool:
        return [one.result(60) for one in [pool.submit(begin) for _ in range(n)]]


def test_threads_of_one_machine_fetch_an_artifact_once(machine, slow_copies):
    made = commit(machine("a"))
    machine("b")

    def read():
        found = RemoteStore("s3://bucket/root").open(made.reference)
        return found.path("model/weights.bin").stat().st_ino

    assert len(set(all_at_once(read))) == 1  # nobody's copy was replaced while it was read
    assert len(slow_copies) == 1
    assert not list(machine("b").root.glob("*/.fetch-*"))


def test_a_plan_leaves_a_copy_alone_that_has_just_been_fetched(machine, monkeypatch):
    made = commit(machine("a"))
    key, other = made.manifest.fingerprint, machine("b")
    look, looks = other._remote_manifest, []

    def fetched_meanwhile(stage, key):
        looks.append(key)
        if len(looks) == 1:  # before it there was no copy
            assert RemoteStore("s3://bucket/root").find(stage, key)
        return look(stage, key)

    monkeypatch.setattr(other, "_remote_manifest", fetched_meanwhile)
    assert other.known("oracle", key) == made.manifest
    assert other.folder("oracle", key).exists()


@pytest.mark.usefixtures("quick")
def test_a_copy_is_not_published_into_what_another_machine_is_publishing(machine, monkeypatch):
    """What was there is deleted first: for a while there seems to be nothing."""
    key = commit(machine("a")).manifest.fingerprint
    assert machine("b").find("oracle", key)
    first, second = machine("a"), machine("b")
    publish, halfway, found = Remote.publish, threading.Event(), []

    def with_a_pause(remote, folder, manifest):
        remote.discard(manifest.stage, manifest.fingerprint)
        halfway.set()
        time.sleep(1)
        publish(remote, folder, manifest)

    def reuse():
        halfway.wait(30)
        found.append(second.find("oracle", key))

    monkeypatch.setattr(Remote, "publish", with_a_pause)
    other = threading.Thread(target=reuse)
    other.start()
    anew = commit(first, "other weights")
    other.join(60)
    assert found[0].path("model/weights.bin").read_text() == "other weights"
    assert machine("c").find("oracle", key).manifest == anew.manifest


def test_garbage_is_collected_after_killed_collections_and_runs(machine, s3, quick):
    store = machine("a")
    for name in ("garbage-collection", "run-0123"):
        s3.pipe_file(f"bucket/root/.locks/{name}.json", b'{"owner": "killed", "beat": 3}')
    with store.alone() as alone:
        assert alone
    assert not s3.exists("bucket/root/.locks/run-0123.json")
    assert s3.exists("bucket/root/.locks") is False or not s3.ls("bucket/root/.locks")


def test_deleting_deletes_there_and_here(machine, s3):
    store = machine("a")
    made = commit(store)
    store.discard("oracle", made.manifest.fingerprint)
    assert not s3.find("bucket/root/oracle")
    assert machine("b").find("oracle", made.manifest.fingerprint) is None
    assert list(store.manifests()) == []


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in (("BEAT", 0.1), ("PATIENCE", 1.0), ("POLL", 0.05)):
        monkeypatch.setattr(claims, name, seconds)


def test_two_machines_hold_one_lock_in_turn(machine, quick):
    first, second = machine("a").lock("oracle", "k"), machine("b").lock("oracle", "k")
    with first:
        with pytest.raises(Timeout):
            second.acquire(timeout=0)
        with pytest.raises(Timeout):  # longer than patience: a holder that lives keeps it
            second.acquire(timeout=2.5)
        assert machine("b").is_busy()
        threading.Timer(0.5, first.release).start()
        second.acquire()
    second.release()
    assert not machine("a").is_busy()


def test_what_is_reused_waits_for_no_other_machine(machine, quick):
    made = commit(machine("a"))
    held = machine("a").lock("oracle", made.manifest.fingerprint).acquire()
    machine("b")
    given_back = threading.Timer(30, held.release)
    given_back.start()
    call = Call(made.manifest.identity, OracleConfig(), {}, {}, Runtime(root="s3://bucket/root"))
    assert Stage("oracle", 1, lambda job, config: None).compute(call) == made.reference
    assert given_back.is_alive()
    given_back.cancel()
    held.release()


def test_the_claim_of_a_killed_run_is_taken_over(machine, s3, quick):
    path = "bucket/root/.locks/oracle-k.json"
    s3.pipe_file(path, b'{"owner": "a machine that is off", "beat": 7}')
    assert not machine("a").is_busy()
    started = time.monotonic()
    with machine("a").lock("oracle", "k"):
        assert time.monotonic() - started >= 1.0
        assert b"a machine that is off" not in s3.cat_file(path)
    assert not s3.exists(path)


def test_of_two_who_find_a_claim_dead_at_once_one_takes_it_over(machine, s3, quick, monkeypatch):
    """The slower one deletes what the faster one has just made."""
    s3.pipe_file("bucket/root/.locks/oracle-k.json", b'{"owner": "a machine that is off"}')
    delete, both, made = claims.Claim._delete, threading.Barrier(2), threading.Event()
    held = []

    def in_turn(claim):
        if threading.current_thread().name == "done":
            return delete(claim)
        first = both.wait(30) == 0
        if first:
            delete(claim)
            assert claim._create()
            claim._create = lambda: True  # what follows finds its own
            made.set()
        else:
            made.wait(30)
            delete(claim)
        threading.current_thread().name = "done"
        return None

    def take(lock):
        try:
            with lock.acquire(timeout=4):
                held.append(True)
                assert len(held) == 1
                time.sleep(5)
        except Timeout:
            held.append(False)

    monkeypatch.setattr(claims.Claim, "_delete", in_turn)
    locks = [machine(name).lock("oracle", "k") for name in "ab"]
    threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(held) == [False, True]


def test_an_endpoint_that_nobody_answers_at_is_told_in_one_line(machine, monkeypatch, s3_endpoint):
    store = machine("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(store.remote.files).clear_instance_cache()
    with pytest.raises(UserError, match=r"^s3://bucket/root: .*check the address") as told:
        list(machine("a").manifests())
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="check the address"):
        machine("a").lock("oracle", "k").acquire(timeout=0)
    with pytest.raises(UserError, match="check the address"):  # finished, but not published
        commit(machine("a"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    type(store.remote.files).clear_instance_cache()
    [made] = machine("a").manifests()
    assert machine("b").find("oracle", made.fingerprint) is None
    machine("a").open(made.reference)  # the next run makes up for it
    assert machine("b").open(made.reference).path("curve.txt").read_text() == "1 2 3"


@pytest.mark.parametrize("error", [UserError("the network"), KeyboardInterrupt(), OSError(28)])
def test_a_fetch_that_is_ended_leaves_no_part_of_a_copy(machine, monkeypatch, error):
    made = commit(machine("a"))

    def broken(remote, stage, key, manifest, folder):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "weights.bin").write_text("wei")
        raise error

    other = machine("b")
    with monkeypatch.context() as patched:
        patched.setattr(Remote, "fetch", broken)
        with pytest.raises(type(error)):
            other.open(made.reference)
    assert not list(other.root.glob("*/.fetch-*"))
    assert other.open(made.reference).manifest == made.manifest


def test_a_note_that_cannot_be_deleted_costs_a_sweep_nothing(machine, monkeypatch, caplog):
    store = machine("a")
    note_sweep(store, "mine", [commit(store).reference])

    def refused(path):
        raise RuntimeError("AccessDenied")  # botocore's errors are no OSError either

    monkeypatch.setattr(store.remote.files, "rm_file", refused)
    forget_sweep(store, "mine")
    assert ".sweeps/mine.json stays, delete it by hand: s3://bucket/root: " in caplog.text
    monkeypatch.undo()


def test_a_bucket_that_is_not_there_and_a_scheme_nobody_knows_are_told(machine, s3):
    s3.rm("bucket", recursive=True)
    with pytest.raises(UserError, match="no such place"):
        commit(machine("a"))
    with pytest.raises(UserError, match="nosuch"):
        open_root("nosuch://bucket")
