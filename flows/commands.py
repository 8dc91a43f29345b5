"""Commands that walk a method's stages: run and plan."""

import logging
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from recalign.config import DPO4RecConfig, Runtime
from recalign.config.presets import load_settings
from recalign.errors import UserError

METHODS = ("dpo4rec",)


def run_method(
    method: str, preset: str, settings: list[str], root: Path, force: list[str], stop_after: str
) -> None:
    """Run a method's flow in this process and print the report's path."""
    config, runtime = _settings(method, preset, settings, root)
    from flows.dpo4rec import dpo4rec
    from flows.session import quiet_user_errors

    quiet_user_errors()
    outcome: Any = dpo4rec(config, runtime, force, stop_after)
    typer.echo(f"report: {outcome}" if isinstance(outcome, str) else outcome.message)


def show_plan(
    method: str, preset: str, settings: list[str], root: Path, force: list[str], stop_after: str
) -> None:
    """Print which stages a run would compute and why; nothing is computed."""
    config, runtime = _settings(method, preset, settings, root)
    from flows.dpo4rec import STAGES, stages
    from flows.session import plan_row, prepare
    from tasks.run import Run

    run = Run(runtime, frozenset(force), stop_after)
    table = Table("stage", "artifact", "", "why", box=None)
    for step in prepare(run, STAGES, lambda planned: stages(planned, config)):
        table.add_row(*plan_row(step).values())
    Console().print(table)


def _settings(
    method: str, preset: str, settings: list[str], root: Path
) -> tuple[DPO4RecConfig, Runtime]:
    """The method's configuration and the runtime, `runtime.*` settings included."""
    if method not in METHODS:
        raise UserError(f"no method {method!r}; there are {', '.join(METHODS)}")
    how = [text for text in settings if text.startswith("runtime.")]
    what = [text for text in settings if not text.startswith("runtime.")]
    runtime = load_settings(Runtime, method, "", [text.removeprefix("runtime.") for text in how])
    if not root.is_absolute():
        root = Path.cwd() / root
    logging.getLogger("recalign").setLevel(logging.INFO)
    return (
        load_settings(DPO4RecConfig, method, preset, what),
        runtime.model_copy(update={"root": str(root)}),
    )
