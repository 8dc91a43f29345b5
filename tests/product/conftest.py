"""A service of `recalign up`; and prefect.yaml's deployments at a plain server, with a worker."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.product.running_service import RunningService, free_port

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One running service for all tests; what a test kills it brings up again."""
    service = RunningService(tmp_path_factory.mktemp("service") / "artifacts", free_port())
    service.environment["RECALIGN_HOSTS"] = "ui.example, other.example"
    (service.root / "presets").mkdir(parents=True)
    (service.root / "presets" / "wrong.toml").write_text("[alignement]\nbeta = 1\n")
    service.told = service.up()
    yield service
    service("down")
    assert service.all_processes() == []


def prefect(api, *arguments):
    """Prefect's own command line, in the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PREFECT_API_URL": api, "PWD": str(ROOT)}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def deployments(prefect_api):
    """All deployments of prefect.yaml, by name."""
    prefect(prefect_api, "work-pool", "create", "recalign", "--type", "process", "--overwrite")
    prefect(prefect_api, "--no-prompt", "deploy", "--all")
    found = httpx.post(f"{prefect_api}/deployments/filter", json={}, timeout=30).json()
    return {deployment["name"]: deployment for deployment in found}


class Worker:
    """A real worker on the deployments' pool, killed at the end."""

    def __init__(self, api, folder):
        self.api, self.log = api, folder / "worker.log"

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "recalign",
             "--prefetch-seconds", "300"],
            cwd=ROOT, env=os.environ | {"PREFECT_API_URL": self.api},
            start_new_session=True, stdout=self.log.open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def finished(self, created):
        """The flow run, as soon as it has ended."""
        assert created.status_code == 201, created.text
        run, deadline = created.json(), time.monotonic() + 240
        while run["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)
            run = httpx.get(f"{self.api}/flow_runs/{run['id']}", timeout=30).json()
        return run


@pytest.fixture
def worker(prefect_api, deployments, tmp_path):
    with Worker(prefect_api, tmp_path) as worker:
        yield worker
