"""A real server of a tiny random LLM: `transformers serve`, for all tests of this folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from recalign.chat_server.server_writer import ServedPolicy, ServerWriter
from recalign.config import ChatServerConfig, LoadedModelConfig
from recalign.llm.local_writer import LocalWriter
from recalign.llm.storage import StoredPolicy
from tests.chat_server.asking import texts_of
from tests.chat_server.between import Between
from tests.conftest import free_port
from tests.tasks.llama3_folder import save_llama3

START_SECONDS = 120
TEXTS = ["Titles: The Matrix; Alien; Up. Which genres does this user like most?"] * 20


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory):
    """A model folder as of Llama-3-8B-Instruct, shrunk, with random weights."""
    folder = tmp_path_factory.mktemp("served")
    save_llama3(TEXTS, folder)
    add_habits(folder, repetition_penalty=1.8)
    return folder


def add_habits(folder, **habits):
    """Habits of sampling in the folder's generation_config.json, as published models have them."""
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_sample": True} | habits))


@pytest.fixture(scope="session")
def llm_server(tmp_path_factory):
    """The address of `transformers serve` on loopback; it opens the folder that a request names."""
    port, home = free_port(), tmp_path_factory.mktemp("serve")
    url, log = f"http://127.0.0.1:{port}", home / "log"
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu", "--dtype", "float32"],
        env=os.environ | {"HF_HOME": str(home)},
        stdout=log.open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_up(url):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def is_up(url):
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def between(llm_server):
    """A server in front of the LLM's, which a test may let fail."""
    with Between(llm_server) as server:
        yield server


@pytest.fixture(scope="session")
def stored(llm_folder):
    held = LoadedModelConfig(kind="huggingface", model=str(llm_folder))
    return StoredPolicy(llm_folder, held)


@pytest.fixture(scope="session")
def unweighted(stored):
    """The served LLM's tokenizer and template, here."""
    return stored.unweighted()


@pytest.fixture(scope="session")
def here(stored):
    """What the writer in this process writes with the same weights."""
    return texts_of(LocalWriter(stored.load("cpu")))


@pytest.fixture
def open_writer(between, llm_folder, unweighted, tmp_path):
    """Opens a writer on the server in front; what is not named is the LLM of `llm_folder`."""

    def open_it(model=str(llm_folder), aligned=None, local=unweighted, **settings):
        server = ChatServerConfig(url=between.url, **({"timeout": 60.0, "retries": 3} | settings))
        return ServerWriter(server, ServedPolicy(model, local, aligned), tmp_path / "work")

    return open_it
