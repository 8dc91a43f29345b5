"""A run whose worker hears of no Cancel, on a real server."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
RUN = """
import os
import time

from prefect import flow
from prefect.runtime import flow_run

from flows.service import cancelling, processes
from flows.session import begin_session

cancelling.PAUSE_SECONDS, cancelling.PATIENCE_SECONDS = 0.2, 1.0


@flow
def lasting():
    os.environ[processes.FLOW_RUN] = flow_run.id  # as a worker does
    begin_session()
    print(flow_run.id, flush=True)
    time.sleep(120)


lasting()
"""


def test_a_run_that_no_worker_cancels_ends_itself_and_no_other(prefect_api):
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=ROOT, env=os.environ | {"PREFECT_API_URL": prefect_api},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        run = f"{prefect_api}/flow_runs/{process.stdout.readline().strip()}"
        time.sleep(2)
        assert process.poll() is None
        cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        httpx.post(f"{run}/set_state", json=cancel, timeout=30).raise_for_status()
        assert process.wait(60) == 0
    state = httpx.get(run, timeout=30).json()["state"]
    assert state["type"] == "CANCELLED"
    assert state["message"] == "No worker ended the run within 1 s: it ended itself."
