"""The command line: quick help, one-line errors, exit codes."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import typer.main
from typer.testing import CliRunner

from flows.cli.app import app


def test_help_names_every_command_and_every_command_has_help():
    commands = list(typer.main.get_group(app).commands)
    assert {"run", "plan", "sweep", "recommend", "export", "verify", "up"} <= set(commands)
    runner = CliRunner()
    text = runner.invoke(app, ["--help"]).stdout
    for command in commands:
        assert f" {command} " in text
        told = runner.invoke(app, [command, "--help"])
        assert (told.exit_code, f" {command} " in told.stdout) == (0, True)


@pytest.mark.parametrize("method", ["dpo4rec", "rosepo"])
def test_a_plan_does_not_wait_for_transformers_to_be_imported(method):
    script = (
        "import sys; from flows.methods import method_named; "
        f"assert method_named({method!r}).load().stages; sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_deployments_do_not_wait_for_transformers_to_be_imported():
    script = (
        "import sys; from pathlib import Path; from flows.service.deployments import deployments; "
        "assert len(list(deployments(Path('none')))) > 10; sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "dpo5rec"), "no method 'dpo5rec'; there are dpo4rec"),
        (("run", "dpo4rec", "--set", "oracle.hiden=3"), "oracle.hiden: no such setting"),
        (("plan", "dpo4rec", "--preset", "nope"), "preset 'nope' is neither"),
        (("plan", "dpo4rec", "--force", "orcale"), "no stage 'orcale'; there are interactions"),
        (("sweep", "dpo4rec", "--over", "alignment.beta"), "--over alignment.beta: write stage."),
        (("compare", "report/1", "--root", "."), "no artifact 'report/1'"),
        (("ls", "--root", "/nowhere"), "no artifacts at /nowhere"),
        (("show", "oracle/123", "--root", "."), "no artifact 'oracle/123'"),
        (
            ("run", "dpo4rec", "--set", "interactions.source=ml-1m",
             "--set", "interactions.raw_folder=/nowhere"),
            "/nowhere: no such folder (interactions.raw_folder)",
        ),
        (
            ("run", "dpo4rec", "--set", "runtime.devices=2", "--set", "alignment.batch_size=8",
             "--set", "alignment.micro_batch_size=8"),
            "alignment.micro_batch_size: 2 devices",
        ),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_code_2(recalign, tmp_path, arguments, message):
    if "--root" not in arguments:
        arguments = (*arguments, "--root", str(tmp_path / "root"))
    done = recalign(*arguments, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("recalign: ")
    assert message in line


def test_a_database_of_a_newer_prefect_is_one_line(tmp_path):
    home, root = tmp_path / "home", ["--root", str(tmp_path / "root")]
    home.mkdir()
    with closing(sqlite3.connect(home / "prefect.db")) as made, made:
        made.execute("create table alembic_version (version_num text)")
        made.execute("insert into alembic_version values ('0a1b2c3d4e5f')")
    environment = os.environ | {"PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    program = str(Path(sys.executable).parent / "recalign")
    for command, way_out in [
        (["run", "dpo4rec", "--preset", "tiny", *root], "export PREFECT_HOME=FOLDER"),
        (["up", "--home", str(home), *root], "or name another --home"),
    ]:
        done = subprocess.run(
            [program, *command], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert f"{home}/prefect.db: a newer Prefect than " in line
        assert line.endswith(way_out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_timeout_ends_a_run_soon_and_says_that_it_can_go_on(recalign, tmp_path, number):
    """The signal goes to the whole group, as a terminal and `timeout` send it."""
    environment = {k: v for k, v in recalign.environment.items() if k != "PREFECT_API_URL"}
    endless = ("--set", "oracle.epochs=1000", "--set", "oracle.patience=1000")
    run = subprocess.Popen(
        [recalign.program, "run", "dpo4rec", "--preset", "tiny", "--root", str(tmp_path), *endless],
        env=environment | {"PREFECT_HOME": str(tmp_path / "prefect")},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job, which the tests may be, passes on that it ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("oracle/.draft-*/work/*")):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    servers = [p for p in psutil.Process(run.pid).children() if "uvicorn" in p.cmdline()]
    assert servers
    os.killpg(run.pid, number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert not any(server.is_running() for server in servers)
    assert "Traceback" not in said
    assert "recalign: interrupted; what is finished is kept, run again to continue\n" in said
