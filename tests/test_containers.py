"""The files for containers agree with the project: paths, versions, entrypoints, secrets."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.resources import files
from pathlib import Path

import httpx
import jsonschema
import pytest
import yaml
from prefect import Flow

from flows.service.deployments import deployments as of_the_service
from recalign.chat_server.client import KEY
from tests.conftest import answers, free_port

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
CONTAINERS = yaml.safe_load((ROOT / "prefect.containers.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SECRETS = {"RECALIGN_SECRET": "hidden", "RECALIGN_DATABASE_PASSWORD": "secret"}


def word(pattern):
    found = re.search(pattern, DOCKERFILE, re.MULTILINE)
    assert found, pattern
    return found[1]


def test_the_dockerfile_has_no_faults_that_hadolint_knows():
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_holds_what_the_project_is_made_of():
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
              for name in line.split()]  # fmt: skip
    assert all((ROOT / name).exists() for name in copied)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {*wheel, "pyproject.toml", PROJECT["project"]["readme"], "prefect.yaml"}
    needed |= {*PROJECT["project"]["license-files"], "constraints.txt"}
    assert needed <= set(copied)
    admitted = {line.strip("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert {"prefect*.yaml" if name.startswith("prefect") else name for name in copied} <= admitted
    major, minor = map(int, word(r"^ARG PYTHON=(.+)$").split("."))
    least = PROJECT["project"]["requires-python"]
    assert (major, minor) >= tuple(map(int, least.removeprefix(">=").split(".")))
    extras = [*word(r"extras=([a-z0-9,]+);").split(","), word(r"extras\+=,([a-z]+);")]
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])
    assert word(r"^USER (.+)$") == "1000"


def test_runs_in_containers_find_the_checkout_and_the_same_volume():
    steps = CONTAINERS["pull"][0]["prefect.deployments.steps.set_working_directory"]
    assert steps["directory"] == word(r"^WORKDIR (.+)$")
    volume = word(r"^VOLUME (.+)$")
    pools = CONTAINERS["definitions"]
    docker = pools["docker"]["job_variables"]
    project = yaml.safe_load(COMPOSE)
    assert docker["volumes"] == [f"{project['name']}_{v}:{volume}" for v in ["data"]]
    assert "data" in project["volumes"]
    assert docker["networks"] == [f"{project['name']}_default"]
    assert docker["env"]["RECALIGN_ROOT"] == word(r"RECALIGN_ROOT=(\S+)$")
    assert docker["env"]["RECALIGN_ROOT"].startswith(f"{volume}/")
    assert f"data:{volume}" in SERVICES["worker"]["volumes"]


def test_what_runs_download_and_hand_out_lies_in_the_volume(monkeypatch, tmp_path):
    volume = word(r"^VOLUME (.+)$")
    assert word(r"HF_HOME=(\S+)").startswith(f"{volume}/")
    output = word(r"RECALIGN_OUTPUT=(\S+)")
    assert output.startswith(f"{volume}/")
    monkeypatch.setenv("RECALIGN_OUTPUT", output)
    found = {made["name"]: made["parameters"] for _, made in of_the_service(tmp_path)}
    assert [found[name]["config"]["output"] for name in ("recommend", "recommend-nightly")] == [
        output, output
    ]  # fmt: skip
    monkeypatch.delenv("RECALIGN_OUTPUT")
    found = {made["name"]: made["parameters"] for _, made in of_the_service(tmp_path)}
    assert found["recommend"] == {}


def test_deployments_in_containers_are_flows_of_the_project():
    known = {entry["entrypoint"] for entry in deployments("prefect.yaml")}
    entries = deployments("prefect.containers.yaml")
    assert len({entry["name"] for entry in entries}) == len(entries) > 0
    for entry in entries:
        assert entry["entrypoint"] in known
        module, _, name = entry["entrypoint"].rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), Flow)


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_pools_of_containers_take_the_variables_that_deployments_give_them(kind):
    """As Prefect's own templates of these pools say, which come with its server."""
    views = files("prefect.server.api.collections_data.views")
    known = json.loads(views.joinpath("aggregate-worker-metadata.json").read_text())
    (worker,) = [made[kind] for made in known.values() if kind in made]
    schema = worker["default_base_job_configuration"]["variables"]
    given = CONTAINERS["definitions"][kind]["job_variables"]
    assert set(given) <= set(schema["properties"])
    jsonschema.validate(given, schema)
    assert all(isinstance(value, str) for value in given["env"].values())


def deployments(file):
    return yaml.safe_load((ROOT / file).read_text())["deployments"]


def test_compose_starts_nothing_without_its_secrets_and_publishes_on_this_machine_alone():
    for name in SECRETS:
        used = re.findall(r"\$\{" + name + r"[^}]*\}", COMPOSE)
        assert used
        assert all(":?" in one for one in used)
    assert f"${{{KEY}:-}}" in COMPOSE
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"server": ["127.0.0.1:4200:4200"]}
    assert SERVICES["server"]["environment"]["RECALIGN_HOSTS"] == "server"
    assert SERVICES["worker"]["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
    given = [service.get("environment", {}) for service in SERVICES.values()]
    asking = [one for one in given if "PREFECT_API_URL" in one]
    assert asking  # and no proxy, which Docker may put in, is sent the secret
    assert {one[name] for one in asking for name in ("NO_PROXY", "no_proxy")} == {
        "server,localhost,127.0.0.1"
    }


def environment_of(service, port, home):
    """The service's variables with secrets put in, at another port, and in a folder of the test."""
    given = {
        name: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: SECRETS.get(found[1], ""), str(value))
        .replace("4200", str(port)).replace("//server", "//127.0.0.1")
        for name, value in SERVICES[service]["environment"].items()
    }  # fmt: skip
    given.pop("PREFECT_SERVER_DATABASE_CONNECTION_URL", None)  # SQLite, in the folder
    if "RECALIGN_BIND" in given:
        given["RECALIGN_BIND"] = "127.0.0.1"
    return os.environ | given | {"PREFECT_HOME": str(home), "RECALIGN_ROOT": str(home / "root")}


@pytest.mark.slow  # a server of Prefect, with the variables that compose.yaml gives it
def test_the_server_and_the_registration_of_compose_work_with_their_variables(tmp_path):
    port = free_port()
    command = SERVICES["server"]["command"]
    server = subprocess.Popen(
        [sys.executable, *command[1:-1], str(port)], cwd=ROOT,
        env=environment_of("server", port, tmp_path),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while not answers(f"http://127.0.0.1:{port}/api"):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        pool = f"http://127.0.0.1:{port}/api/work_pools/recalign"
        assert httpx.get(pool, timeout=30).status_code == 401
        register = SERVICES["deployments"]["command"]
        environment = environment_of("deployments", port, tmp_path)
        subprocess.run(
            [sys.executable, *register[1:]], cwd=ROOT, env=environment, check=True, timeout=300
        )
        login = ("recalign", SECRETS["RECALIGN_SECRET"])
        by_name = {"Host": f"server:{port}"}  # as the worker calls it
        found = httpx.get(pool, auth=login, headers=by_name, timeout=30).json()
        assert "command" not in found["base_job_template"]["variables"]["properties"]
        foreign = httpx.get(pool, auth=login, headers={"Host": "evil.example"}, timeout=30)
        assert foreign.status_code == 400
    finally:
        server.terminate()
        server.wait(60)


def test_docker_compose_reads_the_file():
    docker = shutil.which("docker") or "false"
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    subprocess.run(
        [docker, "compose", "config", "--quiet"], cwd=ROOT, env=os.environ | SECRETS, check=True
    )
