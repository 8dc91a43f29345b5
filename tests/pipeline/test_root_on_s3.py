"""The command line on s3://: one machine computes, another reuses, both look after it."""

import json
import os

import pytest

ROOT = ("--root", "s3://bucket/some/root")
UP_TO_SPLITS = ("dpo4rec", "--preset", "tiny", "--stop-after", "splits", *ROOT)


@pytest.fixture
def on(recalign, s3, tmp_path, monkeypatch):
    """on("a", "ls"): that command on the machine of that name."""

    def call(machine, *arguments, check=True):
        folder = str(tmp_path / machine)
        monkeypatch.setitem(recalign.environment, "RECALIGN_CACHE", folder)
        return recalign(*arguments, check=check).stdout

    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setitem(recalign.environment, name, os.environ[name])
    return call


def created(s3):
    paths = s3.glob("bucket/some/root/*/*/manifest.json")
    return {path: json.loads(s3.cat_file(path))["created"] for path in paths}


@pytest.mark.slow
def test_a_second_machine_reuses_what_the_first_computed(on, s3):
    on("a", "run", *UP_TO_SPLITS)
    first = created(s3)
    assert len(first) == 2
    planned = on("b", "plan", *UP_TO_SPLITS).splitlines()
    assert [" reused" in line for line in planned[1:-1]] == [True, True]
    on("b", "run", *UP_TO_SPLITS)
    assert created(s3) == first
    assert not s3.glob("bucket/some/root/.locks/*")

    listed = on("c", "ls", *ROOT).splitlines()
    assert [line.split("/")[0] for line in listed[1:]] == ["interactions", "splits"]
    [splits] = [path.split("/")[-2] for path in first if "/splits/" in path]
    assert '"n_negatives"' in on("c", "show", splits, *ROOT)
    assert "2 artifacts, 0 damaged files" in on("c", "verify", *ROOT)
    s3.pipe_file(f"bucket/some/root/splits/{splits}/windows.parquet", b"")
    assert f"splits/{splits[:10]}: windows.parquet has other" in on("c", "verify", *ROOT,
                                                                    check=False)  # fmt: skip
    on("d", "run", *UP_TO_SPLITS)  # not used, computed anew, mended
    assert "2 artifacts, 0 damaged files" in on("c", "verify", *ROOT)
    changed = {path for path, when in created(s3).items() if when != first[path]}
    assert [path.split("/")[-3] for path in changed] == ["splits"]
    on("a", "gc", *ROOT, check=False)
    assert set(created(s3)) == set(first)  # nothing to keep yet: refused
