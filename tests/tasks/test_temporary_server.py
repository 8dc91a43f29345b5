"""Prefect's temporary server ends with the run, however that ends; nohup keeps a run going."""

import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.runs import start_server
from recalign.errors import UserError

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


class Locked(BaseHTTPRequestHandler):
    """A server that lets nobody in."""

    def do_GET(self):
        self.send_response(401)
        self.end_headers()

    def log_message(self, *told):
        pass


@pytest.fixture
def own_signals():
    """What signals do in this process is as it was before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_named_server_that_is_down_or_locked_is_told_in_one_line():
    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        locked = f"the server at {api} does not let this run in"
        with temporary_settings({PREFECT_API_URL: api}), pytest.raises(UserError, match=locked):
            start_server()
        server.shutdown()
    down = f"no server answers at {api}: start it with `recalign up`, or unset PREFECT_API_URL"
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(UserError, match=down):
        start_server()
