"""A run whose worker hears of no Cancel, on a real server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
RUN = """
import os
import signal
import sys
import time

from prefect import flow
from prefect.runtime import flow_run

from flows.service import cancelling, processes
from flows.session import begin_session

cancelling.PAUSE_SECONDS, cancelling.PATIENCE_SECONDS = 0.2, 1.0


@flow
def lasting():
    if sys.argv[1] == "of a worker":
        os.environ[processes.FLOW_RUN] = flow_run.id
    begin_session()
    print(flow_run.id, flush=True)
    time.sleep(120)


signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as the command line
lasting()
"""


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [
        ("of a worker", 0, "No worker ended the run within 1 s: it ended itself."),
        ("of the command line", 128 + signal.SIGTERM, "The run ended itself."),
    ],
)
def test_a_run_that_no_worker_cancels_ends_itself_and_no_other(prefect_api, kind, code, told):
    environment = os.environ | {"PREFECT_API_URL": prefect_api}
    with subprocess.Popen(
        [sys.executable, "-c", RUN, kind], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        run = f"{prefect_api}/flow_runs/{process.stdout.readline().strip()}"
        time.sleep(2)
        assert process.poll() is None
        cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        httpx.post(f"{run}/set_state", json=cancel, timeout=30).raise_for_status()
        assert process.wait(60) == code
    state = httpx.get(run, timeout=30).json()["state"]
    assert state["type"] == "CANCELLED"
    assert state["message"] == told
