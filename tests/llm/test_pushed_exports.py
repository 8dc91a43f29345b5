"""An export goes to a private repository of the hub alone, and leaves nothing of an earlier one."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from recalign.errors import UserError
from recalign.export.place import require_private, upload

NAME = "me/my-llm"
COMMIT = f"https://huggingface.co/{NAME}/commit/0"


class Hub(BaseHTTPRequestHandler):
    """What huggingface.co answers to who pushes; `repositories`: (private, files) by name."""

    repositories: dict[str, tuple[bool, dict[str, bytes]]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            there = NAME in self.repositories
            self.repositories.setdefault(NAME, (True, {}))
            self.answer({"url": f"{constants.ENDPOINT}/{NAME}"}, 409 if there else 200)
        elif self.path == "/api/validate-yaml":
            self.answer({})
        elif self.path.startswith(f"/api/models/{NAME}/preupload/"):
            ways = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [one | ways for one in json.loads(body)["files"]]})
        else:
            assert self.path.startswith(f"/api/models/{NAME}/commit/")
            self.commit([json.loads(line) for line in body.splitlines()])
            self.answer({"success": True, "commitUrl": COMMIT, "commitOid": "0" * 40})

    def commit(self, lines):
        _, files = self.repositories[NAME]
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]

    def do_GET(self):
        if NAME not in self.repositories:
            self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
            return
        private, files = self.repositories[NAME]
        if "/tree/" in self.path:
            self.answer([
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in files.items()
            ])  # fmt: skip
        else:
            self.answer({"id": NAME, "private": private, "sha": "0" * 40, "siblings": []})

    def answer(self, content, status=200, error=""):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def repositories(monkeypatch):
    """The repositories of a hub, the only one that huggingface_hub knows now."""
    found: dict[str, tuple[bool, dict[str, bytes]]] = {}
    hub = type("OneHub", (Hub,), {"repositories": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    """An exported adapter."""
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text(f"{name}, new")
    return tmp_path


def test_a_new_repository_is_private_and_holds_the_folder(repositories, folder):
    require_private(NAME)
    assert repositories == {}
    assert upload(folder, NAME) == COMMIT
    private, files = repositories[NAME]
    assert private
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_pushed_where_everybody_can_read_it(repositories, folder):
    repositories[NAME] = (False, {})
    for push in (lambda: require_private(NAME), lambda: upload(folder, NAME)):
        with pytest.raises(UserError, match=f"--push {NAME}: everybody can read this repository"):
            push()
    assert repositories[NAME] == (False, {})


def test_weights_of_an_earlier_export_do_not_stay_beside_a_new_adapter(repositories, folder):
    merged = ("model.safetensors", "config.json", "tokenizer.json", "base/model.safetensors")
    own = {"notes.md": b"mine", ".gitattributes": b"of the hub"}
    old = dict.fromkeys((*merged, "README.md"), b"old")
    repositories[NAME] = (True, old | own)
    upload(folder, NAME)
    _, files = repositories[NAME]
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()} | own


def test_a_hub_that_cannot_be_reached_is_told_in_a_line_before_and_after(
    repositories, folder, monkeypatch
):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for push, state in ((lambda: require_private(NAME), "nothing is written yet"),
                        (lambda: upload(folder, NAME), f"{folder} is whole")):  # fmt: skip
        with pytest.raises(UserError, match=f"^{NAME}: the hub did not take it: .*{state}$"):
            push()
