"""The deployments of a service: those of prefect.yaml, and one per preset, filled with its values.

`python -m flows.service.deployments` brings them up to date in the environment of the service. What
an operator edited in the UI stays: it is told from what was put there by the copy kept at home.
"""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows.service.access import write_private
from flows.service.prefect_api import ask, connect
from flows.service.record import CHECKOUT, presets_folder
from recalign.artifacts.digests import read_object
from recalign.config import Config, RecommendConfig
from recalign.config.presets import (
    PRESETS,
    complete,
    own_preset,
    preset_names,
    read_preset,
    says_of_itself,
)
from recalign.errors import UserError

RECORD = "deployments.json"
OURS = ("entrypoint", "parameter_openapi_schema", "pull_steps")  # of no use to an operator
THEIRS = ("parameters", "description", "tags")  # ours until an operator changes them
UNFIT = (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY)  # values and form do not agree
Payload = dict[str, Any]


def main() -> None:
    """Create what is missing, update what nobody edited, tell what cannot be deployed."""
    home, root = Path(os.environ["PREFECT_HOME"]), os.environ["RECALIGN_ROOT"]
    record = home / RECORD
    put = put_before(record)
    secret = os.environ["PREFECT_API_AUTH_STRING"]
    with closing(connect(os.environ["PREFECT_API_URL"], secret)) as client:
        for flow, wanted in deployments(presets_folder(root, home)):
            key = f"{flow}/{wanted['name']}"
            try:
                deploy(client, flow, wanted, put.get(key, {}))
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in UNFIT:
                    raise
                told = error.response.json().get("detail", error.response.text)
                print(f"{wanted['name']} stays as it was: {told}")
                continue
            put[key] = {field: wanted[field] for field in THEIRS}
    write_private(record, json.dumps(put))


def put_before(record: Path) -> dict[str, Payload]:
    """What the last time put into each deployment."""
    known = read_object(record)
    if known is None and record.exists():
        print(f"{record} is garbled: whatever the deployments hold counts as edited by hand")
    return known or {}


def deployments(presets: Path) -> Iterator[tuple[str, Payload]]:
    """Flow and content of every deployment, as Prefect's API takes it.

    Where the checkout is not to be written to, as in a container, RECALIGN_OUTPUT names the file of
    recommendations.
    """
    output = os.environ.get("RECALIGN_OUTPUT", "")
    for entry in yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]:
        flow: Flow[..., Any] = load_flow_from_entrypoint(entry["entrypoint"])
        general = _payload(entry, flow)
        config = inspect.signature(flow.fn).parameters.get("config")
        if output and config and isinstance(config.default, RecommendConfig):
            asked = config.default.model_copy(update={"output": output})
            general["parameters"] |= {"config": asked.model_dump(mode="json")}
        yield flow.name, general
        if config and isinstance(config.default, Config) and config.default.presets:
            for preset in _presets_for(entry["name"], config.default, presets):
                yield flow.name, _filled(general, preset, config.default)


def deploy(client: httpx.Client, flow: str, wanted: Payload, put: Payload) -> None:
    """One deployment as wanted, but for what differs from what was put there: that was edited."""
    found = client.get(f"/deployments/name/{flow}/{wanted['name']}")
    if found.status_code == httpx.codes.NOT_FOUND:
        flow_id = ask(client, "POST", "/flows/", {"name": flow})["id"]
        ask(client, "POST", "/deployments/", wanted | {"flow_id": flow_id})
        return
    now = found.raise_for_status().json()
    update = {field: wanted[field] for field in OURS}
    update |= {field: wanted[field] for field in THEIRS if now[field] == put.get(field)}
    known = wanted["parameter_openapi_schema"]["properties"]
    edited = {name: value for name, value in now["parameters"].items() if name in known}
    update["parameters"] = with_edits(wanted["parameters"], edited, put.get("parameters", {}))
    if lost := sorted(now["parameters"].keys() - known):
        print(f"{wanted['name']}: its flow has no {', '.join(lost)} any more: left out")
    ask(client, "PATCH", f"/deployments/{now['id']}", update)


def with_edits(wanted: Payload, now: Payload, put: Payload) -> Payload:
    """The values wanted, but for single values that are now other than what was put there."""
    kept = dict(wanted)
    for name, value in now.items():
        before = put.get(name)
        if isinstance(value, dict) and isinstance(kept.get(name), dict):
            kept[name] = with_edits(kept[name], value, before if isinstance(before, dict) else {})
        elif name not in put or value != before:
            kept[name] = value
    return kept


def _payload(entry: Payload, flow: Flow[..., Any]) -> Payload:
    """An entry of prefect.yaml as Prefect's API takes it."""
    limit = entry.get("concurrency_limit")
    strategy = limit["collision_strategy"] if isinstance(limit, dict) else "ENQUEUE"
    folder = {"directory": str(CHECKOUT)}
    schema = parameter_schema(flow).model_dump_for_openapi()
    return {
        "name": entry["name"],
        "description": entry["description"],
        "tags": entry.get("tags", []),
        "entrypoint": entry["entrypoint"],
        "work_pool_name": entry["work_pool"]["name"],
        "parameters": entry.get("parameters", {}),
        "parameter_openapi_schema": schema | {"additionalProperties": False},
        "enforce_parameter_schema": True,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": folder}],
        "concurrency_limit": limit["limit"] if isinstance(limit, dict) else limit,
        "concurrency_options": {"collision_strategy": strategy},
        "schedules": [_schedule(one) for one in entry.get("schedules", [])],
    }


def _schedule(entry: Payload) -> Payload:
    when = {name: value for name, value in entry.items() if name != "active"}
    return {"schedule": when, "active": entry.get("active", True)}


def _presets_for(name: str, usual: Config, folder: Path) -> Iterator[tuple[Path, Config]]:
    """The presets that a deployment is filled with; a user's where they fit, others are told."""
    if name == usual.presets:
        for preset in preset_names(type(usual)):
            path = PRESETS / usual.presets / f"{preset}.toml"
            if (filled := complete(usual, read_preset(path))) != usual:
                yield path, filled
    for path in sorted(folder.glob("*.toml")):
        try:
            yield path, own_preset(path, usual)
        except UserError as error:
            print(f"{path.name} becomes no deployment {name}-{path.stem}: {error}")


def _filled(general: Payload, preset: tuple[Path, Config], usual: Config) -> Payload:
    """A flow's deployment for one preset; scheduled rounds get a series of their own."""
    path, config = preset
    filled: Payload = {"config": config.model_dump(mode="json")}
    if "series" in general["parameter_openapi_schema"]["properties"]:
        filled["series"] = path.stem
    return general | {
        "name": f"{general['name']}-{path.stem}",
        "description": says_of_itself(path) or general["description"],
        "tags": [*general["tags"], f"preset: {path.stem}"],
        "parameters": general["parameters"] | filled,
    }


if __name__ == "__main__":
    main()
