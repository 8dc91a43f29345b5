"""The table where the user wants it: whole or the old one, whoever else writes there."""

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from recalign.config import RecommendConfig, Runtime
from recalign.errors import UserError
from recalign.serving.output import check_output, write_output
from tasks.engine.run import Run


@pytest.fixture
def table(tmp_path):
    """A Parquet table of some size."""
    path = tmp_path / "made" / "table.parquet"
    path.parent.mkdir()
    pl.DataFrame({"user_id": [f"u{n}" for n in range(20_000)]}).write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["recs.parquet", "recs.csv", "new/folders/recs.csv"])
def test_both_kinds_hold_the_same_rows_in_a_folder_that_is_made(table, tmp_path, name):
    check_output(tmp_path / name, {})
    path = write_output(table, tmp_path / name)
    read = pl.read_csv if path.suffix == ".csv" else pl.read_parquet
    assert read(path).equals(pl.read_parquet(table))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recs.jsonl", "recs.jsonl: recommendations are written as .parquet or .csv"),
        ("recs", "recommendations are written as"),
        ("made.csv", "made.csv is a folder; name a file in it"),
        ("made/table.parquet/recs.csv", "recs.csv cannot be written: .* is a file, not a folder"),
        ("made/table.parquet/new/recs.csv", "table.parquet is a file, not a folder"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_computed(
    table, tmp_path, name, message
):
    (tmp_path / "made.csv").mkdir()
    with pytest.raises(UserError, match=message) as told:
        check_output(tmp_path / name, {})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("setting", ["users", "interactions"])
@pytest.mark.parametrize("way", ["same", "relative", "link", "hard link", "linked input"])
def test_a_file_that_is_read_is_never_replaced(tmp_path, monkeypatch, setting, way):
    from flows.serving.nightly import refresh
    from flows.serving.recommend import check

    monkeypatch.chdir(tmp_path)
    own, other = tmp_path / "mine.csv", tmp_path / "other.csv"
    own.write_text("user_id\nu1\n")
    if way in ("link", "linked input"):
        other.symlink_to(own)
    if way == "hard link":
        other.hardlink_to(own)
    named = {"same": own, "relative": Path("mine.csv")}.get(way, other)
    read, written = (named, own) if way == "linked input" else (own, named)
    config = RecommendConfig(output=str(written), **{setting: str(read)})
    run = Run(Runtime(root=str(tmp_path / "artifacts")))
    for asked in (lambda: check(config, run), lambda: refresh(run, "home", config)):
        with pytest.raises(UserError, match=rf"is the file that {setting} reads") as told:
            asked()
        assert "\n" not in str(told.value)
    check_output(tmp_path / "third.csv", config.given)
    assert own.read_text() == "user_id\nu1\n"


@pytest.mark.parametrize("is_there", [True, False])
def test_an_output_that_is_a_link_stays_one_and_what_it_leads_to_is_written(
    table, tmp_path, is_there
):
    behind, link = tmp_path / "disk" / "recs.parquet", tmp_path / "recs.parquet"
    behind.parent.mkdir()
    if is_there:
        behind.write_text("old")
    link.symlink_to(behind)
    check_output(link, {})
    assert write_output(table, link) == behind
    assert link.is_symlink()
    assert pl.read_parquet(behind).equals(pl.read_parquet(table))
    assert list(behind.parent.iterdir()) == [behind]


def test_links_in_a_circle_are_told_in_a_line(tmp_path):
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a\.csv leads nowhere: ") as told:
        check_output(tmp_path / "a.csv", {})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["recs.parquet", "recs.csv"])
def test_a_full_disk_leaves_the_old_table_and_nothing_else(table, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.write_text("old")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        with pytest.raises(UserError, match=f"{name} cannot be written: File too large"):
            write_output(table, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_two_that_write_at_the_same_time_both_leave_a_whole_table(table, tmp_path):
    script = (
        "import sys; from pathlib import Path; from recalign.serving.output import write_output\n"
        "for _ in range(50): write_output(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    path = tmp_path / "out" / "recs.parquet"
    command = [sys.executable, "-c", script, str(table), str(path)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate()[1] for one in both] == ["", ""]
    assert pl.read_parquet(path).equals(pl.read_parquet(table))
    assert list(path.parent.iterdir()) == [path]


def test_so_do_two_of_one_process_id_as_in_two_containers(table, tmp_path, monkeypatch):
    path, together = tmp_path / "out" / "recs.parquet", threading.Barrier(2, timeout=60)
    real, broken = os.fsync, []

    def fsync(handle):
        together.wait()
        real(handle)

    def write():
        try:
            write_output(table, path)
        except UserError as error:
            broken.append(error)

    monkeypatch.setattr(os, "fsync", fsync)
    both = [threading.Thread(target=write) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert not broken
    assert pl.read_parquet(path).equals(pl.read_parquet(table))
