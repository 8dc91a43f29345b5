"""The command line; `recalign --help` lists its commands."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import inventory, takehome, upkeep
from flows.cli.comparing import diff_artifacts
from flows.cli.inventory import ROOT, Root
from flows.cli.runs import RunOptions, deploy_preset, run_method, show_plan
from flows.cli.settings import Prefix, list_presets, show_settings
from flows.cli.sweeps import SweepOptions, compare_runs, run_sweep, show_sweep
from flows.methods import METHODS, method_named
from flows.service import service
from flows.service.environment import settle_environment
from recalign.errors import OUT_OF_REACH, UserError
from recalign.llm.fetch_model import fetch_model
from recalign.llm.published import SMOLLM2, published

app = typer.Typer(
    help="LLM recommenders aligned by preference optimisation, as a pipeline of cached stages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

METHOD = "The method: " + ", ".join(method.name for method in METHODS) + "."
MethodArgument = Annotated[str, typer.Argument(metavar="METHOD", help=METHOD)]
Preset = Annotated[str, typer.Option(help="A packaged preset's name or a TOML file.")]
SetOptions = Annotated[
    list[str] | None, typer.Option("--set", help="stage.field=value; may be repeated.")
]
Over = Annotated[
    list[str] | None, typer.Option(help="stage.field=a,b,c; repeated, every combination.")
]
Force = Annotated[list[str] | None, typer.Option(help="Stage to compute anew; repeatable.")]
StopAfter = Annotated[str, typer.Option(help="Last stage to run.")]
Home = Annotated[
    Path | None, typer.Option(help="Folder of the service's database and logs: ROOT/.prefect.")
]
INTERRUPTED = (130, 143, 129)  # typer's exit code at Ctrl-C, and 128 + SIGTERM or SIGHUP


@app.command()
def run(
    method: MethodArgument,
    preset: Preset = "",
    settings: SetOptions = None,
    root: Root = ROOT,
    force: Force = None,
    stop_after: StopAfter = "",
) -> None:
    """Run a method; whatever an earlier run computed is reused."""
    asked = RunOptions(preset, settings or [], root, force or [], stop_after)
    run_method(method_named(method), asked)


@app.command()
def plan(
    method: MethodArgument,
    preset: Preset = "",
    settings: SetOptions = None,
    root: Root = ROOT,
    force: Force = None,
    stop_after: StopAfter = "",
) -> None:
    """Tell which stages a run would compute or reuse, and why."""
    asked = RunOptions(preset, settings or [], root, force or [], stop_after)
    show_plan(method_named(method), asked)


@app.command()
def sweep(
    method: MethodArgument,
    preset: Preset = "",
    settings: SetOptions = None,
    over: Over = None,
    rows: Annotated[str, typer.Option(help="TOML file with a table of settings per row.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds; 0 is the ordinary run.")] = 1,
    root: Root = ROOT,
    plan_only: Annotated[bool, typer.Option("--plan", help="Only tell how much is new.")] = False,
) -> None:
    """Run a method with many settings and training seeds, and set the results side by side."""
    asked = SweepOptions(RunOptions(preset, settings or [], root), over or [], rows, seeds)
    (show_sweep if plan_only else run_sweep)(method_named(method), asked)


@app.command()
def presets(method: MethodArgument) -> None:
    """List the packaged presets of a method, with what each is for."""
    list_presets(method_named(method))


@app.command()
def settings(method: MethodArgument, prefix: Prefix = "", preset: Preset = "") -> None:
    """List every setting of a method: its value, what it may be, and what it is."""
    show_settings(method_named(method), prefix, preset)


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help=f"Short name of the LLM: {SMOLLM2.name}.")],
) -> None:
    """Bring an LLM that presets name onto this machine; its licence is shown first."""
    found = published(model)
    if found is None:
        raise UserError(f"fetch {model}: no such model; there is {SMOLLM2.name}")
    typer.echo(found.terms)
    typer.echo(f"{model}: {fetch_model(found)}")


app.command("compare")(compare_runs)
app.command("ls")(inventory.list_artifacts)
app.command("show")(inventory.show_artifact)
app.command("diff")(diff_artifacts)
app.command("report")(inventory.report_path)
app.command("series")(inventory.show_series)
app.command("recommend")(takehome.recommend_items)
app.command("refreshes")(takehome.show_refreshes)
app.command("export")(takehome.export_model)
app.command("verify")(upkeep.verify_artifacts)
app.command("gc")(upkeep.collect_garbage)


@app.command()
def up(
    root: Root = ROOT,
    home: Home = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of Prefect's server and UI: 4200.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="sqlite or postgresql://user@host/name.", envvar="RECALIGN_DATABASE"),
    ] = None,
) -> None:
    """Start Prefect's server and UI, a worker, and the deployments of prefect.yaml."""
    service.up(root, home, port, database)


@app.command()
def deploy(
    file: Annotated[Path, typer.Argument(help="A preset, as for `run --preset`.")],
    root: Root = ROOT,
    home: Home = None,
) -> None:
    """Make a preset a deployment of every method that takes its settings, for UI and schedules."""
    deploy_preset(file, root, home)


@app.command()
def down(root: Root = ROOT, home: Home = None) -> None:
    """Stop what `up` started, and the runs in progress."""
    service.down(root, home)


@app.command()
def status(root: Root = ROOT, home: Home = None) -> None:
    """Show which parts of the service run, and where; exit code 1 unless server and worker do."""
    service.status(root, home)


@app.command("open")
def open_ui(root: Root = ROOT, home: Home = None) -> None:
    """Print an address that logs a browser in to the UI, once."""
    service.open_ui(root, home)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    settle_environment()
    # How peft and we ask transformers will change: nothing a user of ours can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", "`past_key_values` is deprecated", FutureWarning)
    try:
        app()
    except UserError as error:
        typer.echo(f"recalign: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in OUT_OF_REACH:
            raise
        typer.echo(f"recalign: {error.filename}: {error.strerror}", err=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code in INTERRUPTED:
            told = "interrupted; what is finished is kept, run again to continue"
            typer.echo(f"recalign: {told}", err=True)
        raise
