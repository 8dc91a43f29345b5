"""The command line: quick help, settings and presets, one-line errors, exit codes."""

import os
import re
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
from flows.methods import METHODS
from recalign.config import Config, Runtime
from recalign.config.presets import preset_names


def test_help_names_every_command_and_every_command_has_help():
    commands = list(typer.main.get_group(app).commands)
    assert {"run", "plan", "sweep", "recommend", "export", "verify", "up"} <= set(commands)
    runner = CliRunner()
    text = runner.invoke(app, ["--help"]).stdout
    for command in commands:
        assert f" {command} " in text
        told = runner.invoke(app, [command, "--help"])
        assert (told.exit_code, f" {command} " in told.stdout) == (0, True)


def fields_of(model, name=""):
    """The whole name of every single setting."""
    for field, described in model.model_fields.items():
        inner, path = described.annotation, f"{name}.{field}".removeprefix(".")
        if isinstance(inner, type) and issubclass(inner, Config):
            yield from fields_of(inner, path)
        else:
            yield path


def listed_settings(*words):
    """Field -> the other columns, of every line of `recalign settings` that has one."""
    told, table = {}, ""
    for line in CliRunner().invoke(app, ["settings", *words]).stdout.splitlines():
        if line.startswith("["):
            table = line[1 : line.index("]")]
        elif line.strip() and not line.startswith(("field ", " ")):
            field, *rest = re.split(r" {2,}", line.strip())
            told[f"{table}.{field}"] = rest
    return told


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_settings_lists_every_field_with_default_bounds_and_meaning(method):
    told = listed_settings(method.name)
    assert sorted(told) == sorted([*fields_of(method.config), *fields_of(Runtime, "runtime")])
    meaningless = [name for name, (_, _, meaning) in told.items() if len(meaning) < 9]
    assert meaningless == []
    epochs = method.config().oracle.epochs
    assert told["oracle.epochs"][:2] == [f"{epochs}", "1 to 10000"]
    assert told["alignment.drop_above"][1:] == [
        "0 to 0.5",
        "Pairs with an eps above this are left out, as likely false negatives; 0.5: none (RosePO). "
        "Used only when optimiser is pairs.",
    ]
    assert told["splits.fit_share"][1] == "0 or more, below 1"
    assert told["splits.positive_above"][1] == "a number"
    assert told["interactions.amazon.year"][:2] == ["2014", "2014, 2018, 2023"]
    assert told["interactions.files.attribute_columns"][:2] == ["[]", "list: text"]
    assert told["interactions.raw_folder"][:2] == ['""', "text"]
    assert told["oracle.item_text"][:2] == ["true", "true, false"]


def test_settings_shows_a_presets_values_and_marks_those_that_differ():
    usual, given = listed_settings("dpo4rec"), listed_settings("dpo4rec", "--preset", "paper")
    assert given["alignment.max_length"][0] == "4096 (default 512)"
    assert given["policy.kind"][0] == "huggingface (default bootstrap)"
    assert given["alignment.epochs"] == usual["alignment.epochs"]  # 3 there and here
    assert not [name for name, (value, *_) in usual.items() if "(default" in value]


def test_settings_of_a_prefix_are_those_whose_name_begins_so():
    every = listed_settings("dpo4rec")
    some = listed_settings("dpo4rec", "alignment.g")
    assert some == {name: rest for name, rest in every.items() if name.startswith("alignment.g")}
    assert {"alignment.gamma", "alignment.grpo.scale"} <= set(some)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_presets_are_listed_with_a_whole_sentence_each(method):
    lines = CliRunner().invoke(app, ["presets", method.name]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == preset_names(method.config)
    assert [line for line in lines if not re.search(r"\S {2,}\S.{20,}[.]$", line)] == []


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
        (("run", "dpo4rec", "--set", "runtime.foo=1"), "runtime.foo: no such setting; there are"),
        (("plan", "dpo4rec", "--preset", "nope"), "preset 'nope' is neither"),
        (("refreshes", "nope", "--root", "."), "no refresh 'nope' at .; there are: none"),
        (("settings", "rosepo", "oracel"), "no setting of rosepo begins with 'oracel'; there are"),
        (("plan", "dpo4rec", "--force", "orcale"), "no stage 'orcale'; there are interactions"),
        (("sweep", "dpo4rec", "--over", "alignment.beta"), "--over alignment.beta: write stage."),
        (("compare", "report/1", "--root", "."), "no artifact 'report/1'"),
        (("ls", "--root", "/nowhere"), "no artifacts at /nowhere"),
        (("verify", "--root", "."), "no artifact at "),
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
    if "--root" not in arguments and arguments[0] != "settings":
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


def test_a_home_that_cannot_be_written_is_one_line(recalign, tmp_path):
    """A file in its place: root may write into every folder."""
    (tmp_path / "taken").touch()
    home = tmp_path / "taken" / "home"
    environment = recalign.environment | {"PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    run = ["run", "dpo4rec", "--preset", "tiny", "--root", str(tmp_path / "root")]
    done = subprocess.run(
        [recalign.program, *run], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    *_, line = done.stderr.strip().splitlines()  # Prefect warns before
    assert "Traceback" not in done.stderr
    assert f"{home}: Prefect cannot write its database there (Not a directory)" in line
    assert line.endswith("export PREFECT_HOME=FOLDER")


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
