"""`recalign up` and `down`, and what happens when parts of it are killed: all of it for real."""

import json
import os
import shutil
import socket
import sqlite3
import sys
import time
from dataclasses import asdict, replace

import httpx
import psutil
import pytest

from flows.service import processes
from flows.service.automations import AUTOMATIONS
from flows.service.record import Service, remembered, without_password
from flows.service.service import deploy, down
from recalign.config import DPO4RecConfig, RosePOConfig
from recalign.config.presets import load_settings, preset_names
from recalign.errors import UserError
from tests.product.running_service import RunningService

pytestmark = pytest.mark.slow
LONG = 900  # epochs; such a run lasts until it is killed


def test_a_second_up_is_refused_and_says_what_runs_where(service):
    again = service("up")
    assert again.returncode == 2
    (line,) = again.stderr.strip().splitlines()
    assert f"already up: http://127.0.0.1:{service.port}" in line
    assert f"worker {service.leader('worker').pid}" in line
    told = service("status")
    assert told.returncode == 0
    for said in (str(service.port), str(service.leader("server").pid), "server.log", "SQLite"):
        assert said in told.stdout


def test_up_says_what_it_waits_for(service):
    asked = f"waiting for the server to answer at http://127.0.0.1:{service.port} ..."
    registered = "waiting for the deployments to be registered ..."
    lines = service.told.splitlines()
    assert lines[:2] == [asked, registered]
    assert lines[-1].startswith(f"log in, once, at: http://127.0.0.1:{service.port}/")


def test_other_settings_are_refused_while_it_runs(service):
    done = service("up", "--database", "postgresql://nobody@127.0.0.1/none")
    assert done.returncode == 2
    assert "runs with other settings; `recalign down` first" in done.stderr


def test_runs_from_the_form_use_the_root_of_the_service(service):
    found = service.api("POST", "/deployments/filter", limit=100)
    for deployment in found:
        runtime = deployment["parameter_openapi_schema"]["properties"]["runtime"]["default"]
        assert runtime["root"] == str(service.root)


@pytest.mark.parametrize("method", [DPO4RecConfig, RosePOConfig], ids=["dpo4rec", "rosepo"])
def test_each_preset_is_a_deployment_whose_form_holds_all_its_values(service, method):
    for name in preset_names(method):
        config = load_settings(method, name)
        if config != method():
            made = service.deployment(f"{method.presets}-{name}")
            assert made["parameters"] == {"config": config.model_dump(mode="json")}
            assert made["tags"] == [f"preset: {name}"]
            assert "preset" not in made["parameter_openapi_schema"]["properties"]
            assert made["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_a_preset_that_fits_no_method_is_told_and_the_rest_is_deployed(service):
    for name in ("dpo4rec", "rosepo", "dpo4rec-rounds"):
        told = f"wrong.toml becomes no deployment {name}-wrong: alignement: no such setting;"
        assert told in service.told


def test_a_value_that_is_its_class_default_wins_over_the_preset_and_the_rest_is_the_presets(
    service,
):
    usual, tiny = DPO4RecConfig(), load_settings(DPO4RecConfig, "tiny")
    assert tiny.alignment.epochs != usual.alignment.epochs
    changed = {"alignment": {"epochs": usual.alignment.epochs}}
    run = service.start_run("dpo4rec-tiny", config=changed, plan_only=True)
    assert service.wait_for_end(run)[0] == "COMPLETED"
    made = service.api("GET", f"/flow_runs/{run}")
    named = f"alignment.epochs={usual.alignment.epochs}"
    assert made["name"] == f"plan: dpo4rec tiny on synthetic, 2 rounds, {named}"
    assert set(made["tags"]) == {"dpo4rec", "data: synthetic", "preset: tiny"}
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        service.start_run("dpo4rec", preset="tiny")


def test_a_users_preset_becomes_deployments_also_for_scheduled_rounds(service, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '# My shop.\n[interactions]\nsource = "files"\nfiles = {interactions = "r.csv"}\n'
    )
    done = service("deploy", str(mine))
    assert done.returncode == 0, done.stderr
    for name in ("dpo4rec-mine", "rosepo-mine", "dpo4rec-rounds-mine"):
        made = service.deployment(name)
        files = made["parameters"]["config"]["interactions"]["files"]
        assert files["interactions"] == str(tmp_path / "r.csv")
        assert made["description"] == "My shop."
    assert made["parameters"]["series"] == "mine"
    assert made["parameters"]["config"]["rounds"]["n"] == 20
    assert [one["active"] for one in made["schedules"]] == [False]
    refused = service("deploy", str(service.root / "presets" / "wrong.toml"))
    assert refused.returncode == 2
    assert "no method takes it; dpo4rec: alignement: no such setting" in refused.stderr


def test_an_edit_that_no_longer_fits_its_form_is_told_and_stays(service, tmp_path):
    made = service.deployment("recommend")
    path = f"/deployments/{made['id']}"
    other_form = {"type": "object", "properties": {"config": {"type": "object"}, "runtime": {}}}
    edit = {"config": {"k": -1}}
    service.api("PATCH", path, parameter_openapi_schema=other_form, parameters=edit)
    preset = tmp_path / "again.toml"
    preset.write_text("[rounds]\nn = 1\n")
    done = service("deploy", str(preset))
    assert done.returncode == 0, done.stderr
    assert "recommend stays as it was: " in done.stdout
    assert service.deployment("recommend")["parameters"] == edit
    form = made["parameter_openapi_schema"]
    service.api("PATCH", path, parameter_openapi_schema=form, parameters=made["parameters"])


def test_automations_are_made_once(service):
    wanted = sorted(automation["name"] for automation in AUTOMATIONS)
    found = service.api("POST", "/automations/filter", limit=100)
    assert sorted(automation["name"] for automation in found) == wanted
    (off,) = [automation for automation in found if not automation["enabled"]]
    assert off["actions"] == [{"type": "do-nothing"}]


def test_a_killed_run_crashes_and_its_retry_continues_at_the_checkpoint(service):
    run = service.start_run(stop_after="policy")
    service.wait_for_stage(run, "policy")
    draft = next(iter(service.root.glob("policy/.draft-*/work/checkpoint.pt")))
    service.leader("worker", run).kill()
    kind, message = service.wait_for_end(run)
    assert kind == "CRASHED"
    assert "SIGKILL" in message
    saved = draft.stat().st_mtime_ns
    # The worker says Crashed once more when its hooks' process has ended, also over a retry.
    service.wait_until(lambda: len(service.all_processes()) == 2, "the end of the run's processes")
    time.sleep(2)
    assert draft.stat().st_mtime_ns == saved
    service.set_state(run, "SCHEDULED", "AwaitingRetry")
    assert service.wait_for_end(run) == ("COMPLETED", "Stopped after policy, as asked")
    assert not draft.exists()


def test_a_server_restart_does_a_run_no_harm_and_cancelling_ends_it(service):
    switch_schedule(service, on=True)
    edited = service.deployment("dpo4rec-rounds")
    form = {"series": "shop", "config": {"rounds": {"n": 7}}}
    service.api("PATCH", f"/deployments/{edited['id']}", parameters=form, tags=["mine"])
    run = service.start_run(epochs=LONG, stop_after="policy")
    service.wait_for_stage(run, "policy")
    process = service.leader("worker", run)
    service.leader("server").kill()
    service.up()
    assert service.state(run)[0] == "RUNNING"
    assert process.is_running()
    assert switch_schedule(service, on=False)  # it is the operator's, though `up` deploys again
    kept = service.deployment("dpo4rec-rounds")
    assert (kept["parameters"], kept["tags"]) == (form, ["mine"])
    service.set_state(run, "CANCELLING", "Cancelling")
    assert service.wait_for_end(run)[0] == "CANCELLED"
    assert not process.is_running()


def switch_schedule(service, on):
    """Switch the schedule of the rounds on or off; whether it was on."""
    rounds = service.deployment("dpo4rec-rounds")
    (schedule,) = rounds["schedules"]
    path = f"/deployments/{rounds['id']}/schedules/{schedule['id']}"
    service.api("PATCH", path, active=on)
    return schedule["active"]


def test_runs_end_with_a_killed_worker_and_up_starts_another(service):
    run = service.start_run(epochs=LONG, stop_after="policy")
    service.wait_for_stage(run, "policy")
    server, worker = service.leader("server").pid, service.leader("worker")
    worker.kill()
    assert service.wait_for_end(run)[0] == "CRASHED"
    service.wait_until(lambda: len(service.all_processes()) == 1, "only the server is left")
    assert service("status").returncode == 1
    service.up()
    assert service.leader("server").pid == server
    assert service.leader("worker").pid != worker.pid


def test_a_run_that_a_terminated_worker_leaves_running_is_cleared(service):
    (silent,) = [
        a for a in service.api("POST", "/automations/filter", limit=100)
        if a["name"] == AUTOMATIONS[0]["name"]
    ]  # fmt: skip
    hasty = {key: silent[key] for key in ("name", "description", "enabled", "actions", "trigger")}
    hasty["trigger"]["within"] = 75.0  # instead of 300
    service.api("PUT", f"/automations/{silent['id']}", **hasty)
    run = service.start_run(epochs=LONG, stop_after="policy")
    service.wait_for_stage(run, "policy")
    service.leader("worker").terminate()
    service.wait_until(lambda: len(service.all_processes()) == 1, "only the server is left")
    kind, message = service.wait_for_end(run)
    assert kind == "CRASHED"
    assert "Retry continues the run" in message
    service.up()


def test_down_ends_a_run_in_its_middle_and_leaves_no_process(service):
    run = service.start_run(epochs=LONG, stop_after="policy")
    service.wait_for_stage(run, "policy")
    done = service("down")
    assert done.returncode == 0
    assert f"run {run} stopped; Retry continues it" in done.stdout
    assert service.all_processes() == []
    with sqlite3.connect(service.home / "prefect.db") as database:
        (kind,) = (
            database.execute(
                "select state_type from flow_run where id = ?", (run.replace("-", ""),)
            ).fetchone()
            or database.execute("select state_type from flow_run where id = ?", (run,)).fetchone()
        )
    assert kind == "CRASHED"
    assert service("down").stdout.strip() == "nothing runs here"


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = RunningService(tmp_path, port)("up", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"recalign: --port {port}: ")
    assert remembered(tmp_path / ".prefect") is None  # the next `up` takes the usual port


def test_a_preset_of_the_same_name_is_not_replaced_but_an_earlier_link_is(tmp_path):
    kept, other = tmp_path / "artifacts" / "presets" / "mine.toml", tmp_path / "mine.toml"
    kept.parent.mkdir(parents=True)
    kept.write_text("# written here")
    other.touch()
    with pytest.raises(UserError, match="is another preset of this name; rename one of them"):
        deploy(str(tmp_path / "artifacts"), None, other)
    assert kept.read_text() == "# written here"
    kept.unlink()
    for _ in range(2):
        deploy(str(tmp_path / "artifacts"), None, other)
    assert kept.resolve() == other


def test_a_preset_of_another_project_does_not_take_over_a_deployed_one_of_its_name(tmp_path):
    root, first, second = (tmp_path / name for name in ("artifacts", "a/mine.toml", "b/mine.toml"))
    for file in (first, second):
        file.parent.mkdir()
        file.touch()
    deploy(str(root), None, first)
    kept = root / "presets" / "mine.toml"
    told = f"{second}: {first} is deployed by this name already, .* delete the link {kept} first"
    with pytest.raises(UserError, match=told):
        deploy(str(root), None, second)
    assert kept.resolve() == first
    first.unlink()  # moved, or deleted: the link leads nowhere
    deploy(str(root), None, second)
    assert kept.resolve() == second


def test_a_moved_or_copied_root_has_a_service_of_its_own(tmp_path, capsys):
    root, link, home = tmp_path / "root", tmp_path / "link", tmp_path / "root" / ".prefect"
    home.mkdir(parents=True)
    link.symlink_to(root)
    began = Service(str(home), str(root), 4201)
    (home / "service.json").write_text(json.dumps(asdict(began)))
    assert remembered(home) == began
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert remembered(copy / ".prefect") == Service(str(copy / ".prefect"), str(copy), 4201)
    apart = tmp_path / "apart"  # a home that lies elsewhere was moved: its root was not
    apart.mkdir()
    (apart / "service.json").write_text(json.dumps(asdict(replace(began, home="/gone"))))
    assert remembered(apart) == replace(began, home=str(apart))

    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    server = processes.start(home, "server", sleep, dict(os.environ), tmp_path)
    try:
        down(str(copy), None)
        assert capsys.readouterr().out == "nothing runs here\n"
        assert server.is_running()
        down(str(link), None)
        assert capsys.readouterr().out == f"server {server.pid} stopped\n"
    finally:
        processes.kill([server])
    shutil.move(root, tmp_path / "moved")
    home, root = tmp_path / "moved" / ".prefect", tmp_path / "moved"
    assert remembered(home) == Service(str(home), str(root), 4201)


def test_a_part_has_started_once_its_mark_can_be_read(tmp_path, monkeypatch):
    real, asked = psutil.Process.environ, []

    def late(process):
        """A program has no environment for a moment after it began."""
        asked.append(process)
        return {} if len(asked) < 4 else real(process)

    monkeypatch.setattr(psutil.Process, "environ", late)
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    server = processes.start(tmp_path, "server", sleep, dict(os.environ), tmp_path)
    try:
        assert len(asked) >= 4
        assert [one.process for one in processes.members(tmp_path)] == [server]
    finally:
        processes.kill([server])


def test_a_process_that_ends_while_it_is_looked_at_is_left_out(tmp_path, monkeypatch):
    def gone(pid):
        raise ProcessLookupError

    monkeypatch.setattr(os, "getsid", gone)
    assert processes.members(tmp_path) == []


def test_what_up_was_given_is_remembered_but_no_password_is_shown(tmp_path):
    url = "postgresql+asyncpg://ann:secret@db:5432/prefect"
    assert without_password(url) == "postgresql+asyncpg://ann:***@db:5432/prefect"
    assert without_password("postgresql+asyncpg://ann@db/prefect").count("*") == 0
    assert remembered(tmp_path) is None
    (tmp_path / "service.json").write_text("{")
    assert remembered(tmp_path) is None
    assert Service(str(tmp_path), "artifacts", 4201).environment()["PREFECT_HOME"] == str(tmp_path)
