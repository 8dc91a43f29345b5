"""Garbage collection deletes what nothing stands on, and nothing of anybody else."""

import json
import os
import time
from datetime import timedelta

import pytest

from flows.cli.upkeep import collect_garbage
from recalign.artifacts.store import Store
from recalign.artifacts.sweep_notes import forget_sweep, note_sweep
from recalign.errors import UserError
from tests.artifacts.test_store import drafted, made


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "root")


def test_garbage_collection_deletes_nothing_while_an_artifact_is_of_the_future(store):
    old, other = made(store, config={"a": 1}), made(store, config={"a": 2})
    path = old.folder / "manifest.json"
    ahead = json.loads(path.read_text()) | {"created": "2999-01-01T00:00:00Z"}
    path.write_text(json.dumps(ahead))
    assert store.find("splits", old.manifest.fingerprint) is not None  # it counts as before
    with pytest.raises(UserError, match=r"made at 2999-01-01 .* what is newest cannot be told"):
        collect_garbage(keep=1, dry_run=False, root=str(store.root))
    assert old.folder.exists()
    assert other.folder.exists()


def test_garbage_collection_deletes_what_prefect_wrote_of_failed_stages(store, capsys):
    store.commit(drafted(store, "report"))
    failure, another = store.root / ("0123456789abcdef" * 2), store.root / f"{'0' * 32}.json"
    for path in (failure, another):
        path.write_text("{}")
    folder = store.root / ("f" * 32)
    folder.mkdir()
    collect_garbage(keep=1, dry_run=True, root=str(store.root))
    assert f"delete {failure.name}\n" in capsys.readouterr().out
    assert failure.exists()
    collect_garbage(keep=1, dry_run=False, root=str(store.root))
    assert "0 and 1 leftovers deleted" in capsys.readouterr().out
    assert [path.exists() for path in (failure, another, folder)] == [False, True, True]


def test_what_was_written_since_the_newest_report_stays_whenever_it_was_begun(store):
    running, done = drafted(store, "alignment"), drafted(store, "policy")
    abandoned = drafted(store, "sft")
    report = store.commit(drafted(store, "report"))
    end = report.manifest.created.timestamp() + report.manifest.seconds
    for draft in (running, abandoned):
        (draft.work / "shard").write_text("hours of work")
        for path in (draft.folder, draft.work, draft.work / "shard"):
            os.utime(path, (end - 60, end - 60))
    os.utime(running.work / "shard", (end + 60, end + 60))
    done.manifest.created -= timedelta(hours=9)
    done._started -= 9 * 3600 + 60
    kept = store.commit(done)
    collect_garbage(keep=1, dry_run=False, root=str(store.root))
    assert running.folder.exists()
    assert not abandoned.folder.exists()
    assert store.find("policy", kept.manifest.fingerprint)


def test_the_finished_runs_of_a_killed_sweep_stay(store, capsys):
    reports = [store.commit(drafted(store, "report", config={"cell": n})) for n in range(5)]
    note_sweep(store, "f" * 32, [one.reference for one in reports[:2]])
    collect_garbage(keep=1, dry_run=False, root=str(store.root))
    assert f"not ended (.sweeps/{'f' * 32}.json): 2 runs" in capsys.readouterr().out
    kept = [bool(store.find("report", one.manifest.fingerprint)) for one in reports]
    assert kept == [True, True, False, False, True]
    forget_sweep(store, "f" * 32)
    collect_garbage(keep=1, dry_run=False, root=str(store.root))
    kept = [bool(store.find("report", one.manifest.fingerprint)) for one in reports]
    assert kept == [False, False, False, False, True]


@pytest.mark.parametrize("draft_of_ours", [True, False])
def test_a_folder_without_any_artifact_is_left_alone(store, draft_of_ours):
    own = [store.root / "photos" / ("0123456789abcdef" * 2), store.root / "mail" / ".draft-letter"]
    for folder in own:
        folder.mkdir(parents=True)
        (folder / "kept.txt").write_text("somebody's")
    own.append(store.root / ("f" * 32))
    own[-1].write_text("a file that is called by its digest")
    if draft_of_ours:  # of a first run that was killed: it may go on
        own.append(drafted(store).folder)
    with pytest.raises(UserError, match="nothing here is known to be ours to delete"):
        collect_garbage(keep=1, dry_run=False, root=str(store.root))
    assert all(path.exists() for path in own)


def test_a_comparison_of_older_runs_ends_no_run_that_was_killed_before_it(store):
    store.commit(drafted(store, "report"))
    time.sleep(0.05)  # a file's time is the kernel's, which ticks more coarsely than a clock
    killed, done = drafted(store, "alignment"), store.commit(drafted(store, "policy"))
    (killed.work / "checkpoint").write_text("hours of work")
    time.sleep(0.05)
    pages = [store.commit(drafted(store, "leaderboard", config={"n": n})) for n in range(3)]
    collect_garbage(keep=1, dry_run=False, root=str(store.root))
    assert killed.folder.exists()
    assert store.find("policy", done.manifest.fingerprint)
    kept = [bool(store.find("leaderboard", one.manifest.fingerprint)) for one in pages]
    assert kept == [False, False, True]
