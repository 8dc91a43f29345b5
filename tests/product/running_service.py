"""A service of `recalign up` under test: runs are started, watched and broken from outside."""

import os
import re
import socket
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from flows.service import processes
from flows.service.prefect_api import connect
from recalign.config import DPO4RecConfig
from recalign.config.presets import load_settings

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE = 420  # seconds on a busy machine


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class RunningService:
    """One service with a home and an artifact root of its own."""

    def __init__(self, root: Path, port: int):
        self.root = root
        self.home = root / ".prefect"
        self.port = port
        self.told = ""  # by the first `up`
        self.environment = {
            **{k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"},
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        }

    def __call__(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """`recalign COMMAND` on this service's root."""
        return subprocess.run(
            [str(Path(sys.executable).parent / "recalign"), command, "--root", str(self.root),
             *options],
            env=self.environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def up(self, *options: str) -> str:
        done = self("up", "--port", str(self.port), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def login(self) -> str:
        """A new address that logs a browser in, once."""
        (address,) = re.findall(r"log in, once, at: (\S+)", self("open").stdout)
        return address

    def leader(self, part: str, flow_run: str = "") -> Any:
        """The process of a part, or of a flow run."""
        (found,) = [
            m.process for m in processes.members(self.home)
            if m.leads and m.part == part and m.flow_run == flow_run
        ]  # fmt: skip
        return found

    def all_processes(self) -> list[str]:
        """What runs, as text for messages."""
        return [f"{m.part} {m.flow_run} {m.process.pid}" for m in processes.members(self.home)]

    def api(self, method: str, path: str, **json: Any) -> Any:
        """A call to Prefect's API, made again where SQLite is locked (503); the decoded answer."""
        for _ in range(10):
            answer = self.client.request(method, path, json=json or None)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @cached_property
    def client(self) -> httpx.Client:
        """One that is logged in, as the command line is."""
        address = f"http://127.0.0.1:{self.port}/api"
        return connect(address, (self.home / "secret").read_text())

    def deployment(self, name: str) -> Any:
        """The deployment of this name."""
        (found,) = [
            d for d in self.api("POST", "/deployments/filter", limit=100) if d["name"] == name
        ]
        return found

    def start_run(self, deployment: str = "dpo4rec", epochs: int = 3, **parameters: Any) -> str:
        """Start a tiny run of a deployment now, its policy trained for `epochs`; its id."""
        found = self.deployment(deployment)
        config = load_settings(DPO4RecConfig, "tiny").model_dump(mode="json")
        config["policy"]["bootstrap"]["epochs"] = epochs
        made = self.api("POST", f"/deployments/{found['id']}/create_flow_run",
                        parameters={"config": config} | parameters,
                        state={"type": "SCHEDULED"})  # fmt: skip
        return made["id"]

    def state(self, run: str) -> tuple[str, str]:
        """Type and message of the run's state."""
        state = self.api("GET", f"/flow_runs/{run}")["state"]
        return state["type"], state["message"]

    def set_state(self, run: str, kind: str, name: str) -> None:
        self.api("POST", f"/flow_runs/{run}/set_state", state={"type": kind, "name": name})

    def wait_for_end(self, run: str) -> tuple[str, str]:
        """The run's final state."""
        self.wait_until(lambda: self.state(run)[0] in FINAL, f"the end of {run}")
        return self.state(run)

    def wait_for_stage(self, run: str, stage: str) -> None:
        """Until the run has saved something in the middle of this stage."""
        asked = time.time()

        def at_work() -> bool:
            assert self.state(run)[0] not in FINAL, self.state(run)
            saved = self.root.glob(f"{stage}/.draft-*/work/checkpoint*")
            return any(path.stat().st_mtime > asked for path in saved)

        self.wait_until(at_work, f"{run} in {stage}")

    def wait_until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.all_processes()}"
            time.sleep(0.2)
