"""Prefect's temporary server ends with the run, however that ends; nohup keeps a run going."""

import signal
import subprocess
import sys

import psutil
import pytest

CODE = """
import subprocess, time
from unittest.mock import patch
from flows.cli import runs

def serve(**_):
    subprocess.Popen(["sleep", "600"])
    print("served", flush=True)

with patch("prefect.client.orchestration.get_client", serve):
    runs.start_server()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death")
def test_a_killed_run_leaves_no_server_behind(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert run.stdout
    assert run.stdout.readline() == "served\n"
    (server,) = psutil.Process(run.pid).children()
    run.kill()
    run.wait(30)
    assert server.wait(30) is not None or not server.is_running()


@pytest.mark.parametrize(("before", "ends"), [(signal.SIG_IGN, False), (signal.SIG_DFL, True)])
def test_a_closed_terminal_ends_no_run_under_nohup(tmp_path, before, ends):
    run = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, before),
    )  # fmt: skip
    assert run.stdout
    assert run.stdout.readline() == "served\n"
    run.send_signal(signal.SIGHUP)
    if ends:
        assert run.wait(30) == 128 + signal.SIGHUP
        return
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(2)
    run.terminate()
    assert run.wait(30) == 128 + signal.SIGTERM
