"""A name that leaves its folder is refused wherever it comes from: no file outside is touched."""

import hashlib
import json
import os
import stat
import zipfile

import pytest
from pydantic import ValidationError

from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import OutputFile, Reference
from recalign.artifacts.names import is_inside
from recalign.artifacts.roots import open_root
from recalign.artifacts.series import SERIES, Series
from recalign.artifacts.store import Store
from recalign.errors import BadInputError, UserError
from recalign.interactions.rawlines import read_bytes

BAD = [
    "/etc/passwd", "../up", "model/../../up", "..", ".", "", "a//b", "a/", "./a", ".hidden",
    "model\\weights", "C:/up", "C:up", "a\0b", "a\nb",
]  # fmt: skip
EVIL = b"ssh-ed25519 AAAA evil\n"


def commit(store):
    draft = store.draft(Identity("splits", 1, {"a": 1}, {}, {}), {})
    draft.path("model/weights 1.txt").write_text("hello")
    return store.commit(draft)


def plant(folder, manifest, name):
    """Make an output of this name part of the artifact, with right digests, as an attacker can."""
    target = folder / name
    if "\0" not in name and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(EVIL)
    manifest.outputs[name] = OutputFile(size=len(EVIL), sha256=hashlib.sha256(EVIL).hexdigest())
    manifest.digest = manifest.content
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def test_ordinary_names_stay_as_they_are():
    for name in ("table.parquet", "model/tokenizer.json", "checkpoint-12/a b.txt", "café…", "a..b"):
        assert is_inside(name)
    assert not any(is_inside(name) for name in BAD)


@pytest.mark.parametrize("name", BAD)
def test_an_artifact_that_names_such_a_file_is_not_found(tmp_path, name):
    store = Store(tmp_path / "root")
    made = commit(store)
    key = made.manifest.fingerprint
    plant(made.folder, made.manifest.model_copy(deep=True), name)
    assert store.find("splits", key) is None
    assert store.without_manifest() == [made.folder]  # so `verify` tells


@pytest.mark.parametrize("name", ["{outside}/up", "../../../../outside/up", "a\\..\\up"])
def test_nothing_is_fetched_outside_of_the_copy(tmp_path, monkeypatch, caplog, name):
    outside, remote = tmp_path / "outside", tmp_path / "remote"
    outside.mkdir()
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "made here"))
    made = commit(open_root(f"file://{remote}"))
    folder = remote / "splits" / made.manifest.fingerprint
    plant(folder, made.manifest.model_copy(deep=True), name.format(outside=outside))
    for path in outside.iterdir():  # where the attacker's own file system has put it
        path.unlink()
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "copies" / "deep" / "down"))
    store = open_root(f"file://{remote}")
    assert store.find("splits", made.manifest.fingerprint) is None
    assert list(store.manifests()) == []
    assert not list(outside.iterdir())
    assert not list((tmp_path / "copies").rglob("up*"))
    assert "its manifest is not used" in caplog.text


@pytest.mark.parametrize("name", [*BAD, "two/parts"])
def test_stages_and_fingerprints_are_names_of_one_folder(name):
    for wrong in ({"stage": name, "fingerprint": "f"}, {"stage": "splits", "fingerprint": name}):
        with pytest.raises(ValidationError, match="is no name of"):
            Reference(**wrong)


def test_a_manifest_that_speaks_of_another_stage_is_not_found(tmp_path):
    store = Store(tmp_path / "root")
    made = commit(store)
    text = json.loads((made.folder / "manifest.json").read_text())
    (made.folder / "manifest.json").write_text(json.dumps(text | {"stage": "oracle"}))
    assert store.find("splits", made.manifest.fingerprint) is None


def test_a_series_file_with_another_name_or_a_bad_reference_is_damaged(tmp_path):
    store = Store(tmp_path)
    SERIES.write(store, Series(name="news"))
    note = store.read_note(".series/news.json")
    assert note is not None
    text = note.decode()
    store.write_note(".series/news.json", text.replace("news", "../../up"))
    with pytest.raises(UserError, match="damaged"):
        SERIES.read(store, "news")
    store.write_note(".series/news.json", text.replace("news", "other"))
    with pytest.raises(UserError, match="damaged"):
        SERIES.read(store, "news")
    with pytest.raises(UserError, match="a name has up to 60"):
        SERIES.read(store, "../news")


@pytest.mark.parametrize("folder", ["..", "/tmp", "ml\\..", ".hidden"])
def test_a_zip_member_with_such_a_name_is_not_read(tmp_path, folder):
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/ratings.dat", "1::2::3::4")
    with pytest.raises(BadInputError, match=r"holds no ratings\.dat"):
        read_bytes(path, "ratings.dat")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ml/ratings.dat", "5::6::7::8")
    assert read_bytes(path, "ratings.dat") == b"5::6::7::8"


def test_all_outputs_have_the_mode_that_the_umask_gives(tmp_path):
    store = Store(tmp_path / "root")
    before = os.umask(0o027)
    try:
        draft = store.draft(Identity("oracle", 1, {}, {}, {}), {})
        draft.path("table.parquet").write_text("1")
        draft.path("model/weights").write_text("2")
        (draft.folder / "model" / "weights").chmod(0o600)
        made = store.commit(draft)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(made.path(name).stat().st_mode) for name in made.manifest.outputs}
    assert modes == {0o640}
    assert store.find("oracle", made.manifest.fingerprint)
