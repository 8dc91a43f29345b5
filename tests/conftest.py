"""One real Prefect server for all tests of a session, and a quiet, offline process."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Models and tables are tiny, and pytest fills the cores: threads would wait for each other.
    # Bits may differ between thread counts, too.
    "OMP_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
}
os.environ.update(QUIET)
START_SECONDS = 240


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """The address of a Prefect server that runs for this session, on a database of its own."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = (home / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
        env=os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_UI_API_URL": url},
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(url):
            assert server.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < deadline, "the Prefect server did not come up"
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def prefect_server(prefect_api):
    """Flows called in this process report to that server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


class Recalign:
    """The command line, as a user runs it, against one Prefect server."""

    def __init__(self, api: str):
        self.environment = os.environ | QUIET | {"PREFECT_API_URL": api}

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.program, *arguments], env=self.environment, capture_output=True, text=True,
            timeout=900, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def alone(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Where no server is named: Prefect would start a temporary one."""
        environment = {k: v for k, v in self.environment.items() if k != "PREFECT_API_URL"}
        return subprocess.run(
            [self.program, *arguments], env=environment, capture_output=True, text=True,
            timeout=900, check=True,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """In the background, in a process group of its own."""
        return subprocess.Popen(
            [self.program, *arguments], env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def program(self) -> str:
        return str(Path(sys.executable).parent / "recalign")


@pytest.fixture(scope="session")
def recalign(prefect_api):
    return Recalign(prefect_api)


@pytest.fixture(scope="session")
def s3_endpoint():
    """The address of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch):
    """An empty s3://bucket, as s3fs sees it; the environment says where it is."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
