"""What `recalign up` and `down` ask of Prefect's API: pool, deployments, automations, states."""

import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from flows.service.automations import AUTOMATIONS
from flows.service.pool import JOB_TEMPLATE
from recalign.errors import UserError

ATTEMPTS = 5
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def is_healthy(api: str) -> bool:
    """Whether a server answers there."""
    try:
        return httpx.get(f"{api}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def connect(api: str, secret: str) -> httpx.Client:
    """A client that the server knows, with Prefect's token against forged requests."""
    user, _, password = secret.partition(":")
    client = httpx.Client(base_url=api, timeout=60, auth=(user, password))
    name = uuid.uuid4().hex
    token = ask(client, "GET", f"/csrf-token?client={name}", {})["token"]
    client.headers.update({"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": token})
    return client


def prepare(api: str, environment: dict[str, str], folder: Path, log: Path) -> None:
    """Make the work pool, the deployments of prefect.yaml and the automations what they should be.

    Schedules of deployments that exist already are the operator's: they stay as they are.
    """
    try:
        with closing(connect(api, environment["PREFECT_API_AUTH_STRING"])) as client:
            if client.get("/work_pools/recalign").status_code == 404:
                create = ("work-pool", "create", "recalign", "--type", "process")
                _prefect(environment, folder, log, *create)
            ask(client, "PATCH", "/work_pools/recalign", {"base_job_template": JOB_TEMPLATE})
            before = ask(client, "POST", "/deployments/filter", {})
            _prefect(environment, folder, log, "--no-prompt", "deploy", "--all")
            for deployment in before:
                _keep_schedules(client, deployment)
            for automation in AUTOMATIONS:
                _ensure_automation(client, automation)
    except httpx.HTTPError as error:
        raise UserError(f"Prefect's server does not do as asked: {error}") from error


def ask(client: httpx.Client, method: str, path: str, content: dict[str, Any]) -> Any:
    """A call to the API; one that finds SQLite locked (503) is made again."""
    for attempt in range(ATTEMPTS):
        answer = client.request(method, path, json=content)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(attempt + 1)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def crash(api: str, secret: str, flow_run: str, message: str) -> None:
    """Mark a run whose process is gone as crashed, unless it has told its end itself."""
    state = {"type": "CRASHED", "name": "Crashed", "message": message}
    try:
        with closing(connect(api, secret)) as client:
            if ask(client, "GET", f"/flow_runs/{flow_run}", {})["state"]["type"] not in FINAL:
                forced = {"state": state, "force": True}
                ask(client, "POST", f"/flow_runs/{flow_run}/set_state", forced)
    except httpx.HTTPError:  # no server to tell: its automation will, when it is back
        return


def _prefect(environment: dict[str, str], folder: Path, log: Path, *arguments: str) -> None:
    """Run Prefect's command line; UserError with the place of its output when it fails."""
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments], env=environment, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        raise UserError(f"`prefect {' '.join(arguments)}` failed; see {log}")


def _keep_schedules(client: httpx.Client, before: dict[str, Any]) -> None:
    """Give a deployment back the schedules it had, paused or not."""
    fields = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")
    schedules = [{field: one[field] for field in fields} for one in before["schedules"]]
    update = {"schedules": schedules, "paused": before["paused"]}
    ask(client, "PATCH", f"/deployments/{before['id']}", update)


def _ensure_automation(client: httpx.Client, wanted: dict[str, Any]) -> None:
    """Create the automation unless there is one of that name: what an operator changed stays."""
    named = {"automations": {"name": {"any_": [wanted["name"]]}}}
    if not ask(client, "POST", "/automations/filter", named):
        ask(client, "POST", "/automations/", wanted)
