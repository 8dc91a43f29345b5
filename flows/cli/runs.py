"""Commands that walk a method's stages: run and plan."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import typer
from pydantic import Field

from flows.methods import METHODS, Method
from flows.service import database, processes, service
from flows.service.record import without_password
from recalign.artifacts.roots import is_url, open_root
from recalign.config import Config, Runtime
from recalign.config.presets import complete, idle, load_settings, own_preset
from recalign.config.runtime import checked_root
from recalign.errors import UserError
from recalign.report import PAGE
from recalign.report.terminal import print_table
from tasks.engine.interruption import watch_for_ctrl_c

if TYPE_CHECKING:
    from tasks.engine.run import Step


class HowToCompute(Config):
    """What `--set runtime.field=value` sets: mistakes are told by that name."""

    runtime: Runtime = Field(default_factory=Runtime)


@dataclass(frozen=True)
class RunOptions:
    """What a user asks of a run, or of its plan."""

    preset: str = ""
    settings: Sequence[str] = ()  # as stage.field=value, `runtime.*` included
    root: str = "artifacts"
    force: Sequence[str] = ()  # stages to compute anew
    stop_after: str = ""

    @property
    def own(self) -> list[str]:
        """The changed settings of the method itself."""
        return [text for text in self.settings if not text.startswith("runtime.")]

    def config(self, method: Method) -> Config:
        """The method's settings."""
        return load_settings(method.config, self.preset, self.own)

    def start(self, method: Method) -> Config:
        """The settings before `--set`; a preset may be valid only with what that adds."""
        try:
            return load_settings(method.config, self.preset)
        except UserError:
            return self.config(method)

    def runtime(self) -> Runtime:
        """Where and how to compute."""
        how = [text for text in self.settings if text.startswith("runtime.")]
        if any(text.partition("=")[0].strip() == "runtime.root" for text in how):
            raise UserError("runtime.root: name the folder of all artifacts with --root")
        root = checked_root(self.root)
        root = root if is_url(root) else str(Path(root).absolute())
        return complete(load_settings(HowToCompute, "", how).runtime, {"root": root})


def run_method(method: Method, asked: RunOptions) -> None:
    """Run a method's flow in this process and print the report's path."""
    service.log_in(asked.root)
    steps = plan_steps(method, asked)  # mistakes, before a server starts
    if needs_no_server(steps):
        tell_of_finished(asked.runtime(), steps, "" if asked.stop_after else "report")
        return
    start_server()
    from tasks.engine.run_names import from_preset

    with from_preset(Path(asked.preset).stem, asked.start(method)):
        state: Any = method.load().flow(
            force=list(asked.force),
            stop_after=asked.stop_after,
            config=asked.config(method),
            runtime=asked.runtime(),
            return_state=True,
        )
    page = state.result()  # raises what made the flow fail
    told = [state.message, f"report: {page}" if page else ""]
    typer.echo("\n".join(filter(None, told)))


def needs_no_server(steps: "list[Step]") -> bool:
    """Whether all is there already, and no server was named that should be told of the run.

    A run that what is there would stop does not count: it has to fail, as everywhere else.
    """
    from prefect.settings import PREFECT_API_URL

    done = all(step.action == "reuse" and not step.stops for step in steps)
    return done and not PREFECT_API_URL.value()


def tell_of_finished(runtime: Runtime, steps: "list[Step]", page: str) -> None:
    """What a run that has nothing to compute has to say; `page`: of the last step, or ""."""
    from flows.session import outlook

    typer.echo(f"nothing to do: {outlook(steps)}")
    if page:
        made = open_root(runtime.root).open(steps[-1].reference)
        typer.echo(f"{page}: {made.path(PAGE).resolve()}")


def start_server() -> None:
    """Start Prefect's temporary server, if no other is set, in a session of its own.

    Ctrl-C and `timeout` reach all processes of a terminal or group. A server gone with them could
    not be told that the run was interrupted, and the run would keep trying for minutes. It ends
    with this process, however that ends.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL

    from flows.service import prefect_api

    kind, _, file = (PREFECT_API_DATABASE_CONNECTION_URL.value() or "").partition(":///")
    if not PREFECT_API_URL.value() and kind.startswith("sqlite"):
        database.check(Path(file), "name another folder: export PREFECT_HOME=FOLDER")
    watch_for_ctrl_c()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it: the terminal may go
            signal.signal(number, _end)
    apart = partial(
        subprocess.Popen, start_new_session=True, preexec_fn=processes.told_of_death(signal.SIGTERM)
    )
    with patch.object(subprocess, "Popen", apart):
        client = get_client(sync_client=True)
    if api := PREFECT_API_URL.value():
        prefect_api.require_answer(client, without_password(api))


def _end(number: int, frame: FrameType | None) -> None:
    """End as at Ctrl-C; while a flow runs, Prefect lets it end first and calls this then."""
    sys.exit(128 + number)


def show_plan(method: Method, asked: RunOptions) -> None:
    """Print which stages a run would compute and why; nothing is computed."""
    steps = plan_steps(method, asked)
    from flows.session import outlook, plan_row

    print_table(["stage", "artifact", "is", "why"], [list(plan_row(s).values()) for s in steps])
    typer.echo(outlook(steps))


def plan_steps(method: Method, asked: RunOptions) -> "list[Step]":
    """The steps of a run; UserError for whatever is wrong with it before it starts."""
    config, runtime = asked.config(method), asked.runtime()
    for line in idle(config, asked.own):
        typer.echo(line, err=True)
    from flows.session import prepare
    from tasks.engine.run import Run

    wiring = method.load()
    run = Run(runtime, frozenset(asked.force), asked.stop_after)
    return prepare(run, wiring.stages, lambda planned: wiring.walk(planned, config))


def deploy_preset(file: Path, root: str, home: Path | None) -> None:
    """Keep a preset with the root and deploy it; UserError where no method takes it."""
    refused = []
    for method in METHODS:
        try:
            own_preset(file, method.config())
        except UserError as error:
            refused.append(f"{method.name}: {error}")
    if len(refused) == len(METHODS):
        raise UserError(f"{file}: no method takes it; {'; '.join(refused)}")
    service.deploy(root, home, file)
