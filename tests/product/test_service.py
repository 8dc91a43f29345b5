"""`recalign up` and `down`, and what happens when parts of it are killed: all of it for real."""

import socket
import sqlite3
import time

import pytest

from flows.service.automations import AUTOMATIONS
from flows.service.record import Service, remembered, without_password
from tests.product.running_service import RunningService, free_port

pytestmark = pytest.mark.slow
LONG = 900  # epochs; such a run lasts until it is killed


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A running service; what a test kills it brings up again."""
    service = RunningService(tmp_path_factory.mktemp("service") / "artifacts", free_port())
    service.up()
    yield service
    service("down")
    assert service.all_processes() == []


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


def test_other_settings_are_refused_while_it_runs(service):
    done = service("up", "--database", "postgresql://nobody@127.0.0.1/none")
    assert done.returncode == 2
    assert "runs with other settings; `recalign down` first" in done.stderr


def test_runs_from_the_form_use_the_root_of_the_service(service):
    found = service.api("POST", "/deployments/filter", limit=100)
    for deployment in found:
        runtime = deployment["parameter_openapi_schema"]["properties"]["runtime"]["default"]
        assert runtime["root"] == str(service.root)


def test_automations_are_made_once(service):
    wanted = sorted(automation["name"] for automation in AUTOMATIONS)
    found = service.api("POST", "/automations/filter", limit=100)
    assert sorted(automation["name"] for automation in found) == wanted


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
    run = service.start_run(epochs=LONG, stop_after="policy")
    service.wait_for_stage(run, "policy")
    process = service.leader("worker", run)
    service.leader("server").kill()
    assert service("status").returncode == 1
    service.up()
    assert service.state(run)[0] == "RUNNING"
    assert process.is_running()
    assert switch_schedule(service, on=False)  # it is the operator's, though `up` deploys again
    service.set_state(run, "CANCELLING", "Cancelling")
    assert service.wait_for_end(run)[0] == "CANCELLED"
    assert not process.is_running()


def switch_schedule(service, on):
    """Switch the schedule of the rounds on or off; whether it was on."""
    (rounds,) = [
        d for d in service.api("POST", "/deployments/filter", limit=100)
        if d["name"] == "dpo4rec-rounds"
    ]  # fmt: skip
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


def test_what_up_was_given_is_remembered_but_no_password_is_shown(tmp_path):
    url = "postgresql+asyncpg://ann:secret@db:5432/prefect"
    assert without_password(url) == "postgresql+asyncpg://ann:***@db:5432/prefect"
    assert without_password("postgresql+asyncpg://ann@db/prefect").count("*") == 0
    assert remembered(tmp_path) is None
    (tmp_path / "service.json").write_text("{")
    assert remembered(tmp_path) is None
    assert Service(str(tmp_path), "artifacts", 4201).environment()["PREFECT_HOME"] == str(tmp_path)
