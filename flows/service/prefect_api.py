"""What `recalign up` and `down` ask of Prefect's API: pool, deployments, automations, states."""

import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient

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


def require_answer(client: SyncPrefectClient, shown: str) -> None:
    """UserError where no server answers this client, or one that does not let it in."""
    try:
        with client:
            client.hello()
    except httpx.HTTPError as error:
        answer = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
        if answer in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UserError(
                f"the server at {shown} does not let this run in: `recalign status` tells what to "
                "export as PREFECT_API_AUTH_STRING"
            ) from error
        raise UserError(
            f"no server answers at {shown}: start it with `recalign up`, or unset PREFECT_API_URL"
        ) from error


def connect(api: str, secret: str) -> httpx.Client:
    """A client that the server knows, with Prefect's token against forged requests."""
    user, _, password = secret.partition(":")
    client = httpx.Client(base_url=api, timeout=60, auth=(user, password))
    name = uuid.uuid4().hex
    token = ask(client, "GET", f"/csrf-token?client={name}", {})["token"]
    client.headers.update({"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": token})
    return client


def prepare(api: str, environment: dict[str, str], folder: Path, log: Path) -> str:
    """Make work pool, deployments and automations what they should be; tells what could not be.

    What an operator changed stays as it is: see `flows/service/deployments.py`.
    """
    try:
        with closing(connect(api, environment["PREFECT_API_AUTH_STRING"])) as client:
            if client.get("/work_pools/recalign").status_code == httpx.codes.NOT_FOUND:
                ask(client, "POST", "/work_pools/", {"name": "recalign", "type": "process"})
            ask(client, "PATCH", "/work_pools/recalign", {"base_job_template": JOB_TEMPLATE})
            told = deploy(environment, folder, log)
            for automation in AUTOMATIONS:
                _ensure_automation(client, automation)
    except httpx.HTTPError as error:
        raise UserError(f"Prefect's server does not do as asked: {error}") from error
    return told


def deploy(environment: dict[str, str], folder: Path, log: Path) -> str:
    """Bring the deployments up to date; tells what could not be deployed."""
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "flows.service.deployments"], env=environment, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise UserError(f"the deployments could not be registered; see {log}")
    return done.stdout


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


def _ensure_automation(client: httpx.Client, wanted: dict[str, Any]) -> None:
    """Create the automation unless there is one of that name: what an operator changed stays."""
    named = {"automations": {"name": {"any_": [wanted["name"]]}}}
    if not ask(client, "POST", "/automations/filter", named):
        ask(client, "POST", "/automations/", wanted)
