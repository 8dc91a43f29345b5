"""Commands that walk a method's stages: run and plan."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flows.cli.inventory import print_table
from recalign.artifacts.roots import is_url
from recalign.config import Config, DPO4RecConfig, RosePOConfig, Runtime
from recalign.config.presets import load_settings, preset_names
from recalign.errors import UserError

if TYPE_CHECKING:
    from recalign.artifacts.manifest import Reference
    from tasks.engine.run import Run, Step
    from tasks.engine.stage import Stage

METHODS: dict[str, type[Config]] = {
    "dpo4rec": DPO4RecConfig,
    "rosepo": RosePOConfig,
    "rosepo-grid": RosePOConfig,
}


@dataclass(frozen=True)
class Method:
    """A method's flow, and what it is made of."""

    flow: Any
    stages: "list[Stage]"
    walk: "Callable[[Run, Any], Reference]"


def method_of(name: str) -> Method:
    """The method by name; its imports, and only its, take seconds."""
    if name == "dpo4rec":
        from flows import dpo4rec

        return Method(dpo4rec.dpo4rec, dpo4rec.STAGES, dpo4rec.stages)
    from flows import rosepo

    if name == "rosepo":
        return Method(rosepo.rosepo, rosepo.STAGES, rosepo.one_strategy)
    return Method(rosepo.rosepo_grid, rosepo.STAGES, rosepo.whole_grid)


def run_method(
    method: str, preset: str, settings: list[str], root: str, force: list[str], stop_after: str
) -> None:
    """Run a method's flow in this process and print the report's path."""
    config, runtime = _settings(method, preset, settings, root)
    plan_steps(method, config, runtime, force, stop_after)  # mistakes, before a server starts
    _start_server()
    state: Any = method_of(method).flow(
        config=config, force=force, stop_after=stop_after, runtime=runtime, return_state=True
    )
    page = state.result()  # raises what made the flow fail
    typer.echo(f"report: {page}" if page else state.message)


def _start_server() -> None:
    """Start Prefect's temporary server, if no other is set, deaf to the terminal's Ctrl-C.

    Ctrl-C reaches all processes of the terminal. A server gone with it could not be told that the
    run was interrupted, and the run would try for minutes.
    """
    from prefect.client.orchestration import get_client

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        get_client(sync_client=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def show_plan(
    method: str, preset: str, settings: list[str], root: str, force: list[str], stop_after: str
) -> None:
    """Print which stages a run would compute and why; nothing is computed."""
    config, runtime = _settings(method, preset, settings, root)
    from flows.session import outlook, plan_row

    steps = plan_steps(method, config, runtime, force, stop_after)
    print_table(["stage", "artifact", "is", "why"], [list(plan_row(s).values()) for s in steps])
    typer.echo(outlook(steps))


def plan_steps(
    name: str, config: Config, runtime: Runtime, force: list[str], stop_after: str
) -> "list[Step]":
    """The steps of a run; UserError for whatever is wrong with it before it starts."""
    from flows.session import prepare
    from tasks.engine.run import Run

    method = method_of(name)
    run = Run(runtime, frozenset(force), stop_after)
    return prepare(run, method.stages, lambda planned: method.walk(planned, config))


def check_method(method: str) -> None:
    """UserError for a method that there is not."""
    if method not in METHODS:
        raise UserError(f"no method {method!r}; there are {', '.join(METHODS)}")


def list_presets(method: str) -> None:
    """Print the names of the method's packaged presets."""
    check_method(method)
    typer.echo("\n".join(preset_names(_family(method))))


def _family(method: str) -> str:
    """The folder of the method's presets."""
    return method.removesuffix("-grid")


def _settings(method: str, preset: str, settings: list[str], root: str) -> tuple[Config, Runtime]:
    """The method's configuration and the runtime, `runtime.*` settings included."""
    check_method(method)
    how = [text for text in settings if text.startswith("runtime.")]
    if any(text.partition("=")[0].strip() == "runtime.root" for text in how):
        raise UserError("runtime.root: name the folder of all artifacts with --root")
    what = [text for text in settings if not text.startswith("runtime.")]
    runtime = load_settings(Runtime, method, "", [text.removeprefix("runtime.") for text in how])
    return (
        load_settings(METHODS[method], _family(method), preset, what),
        runtime.model_copy(update={"root": root if is_url(root) else str(Path(root).absolute())}),
    )
