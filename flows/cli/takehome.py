"""Commands for what comes after a report: recommend, refreshes, export."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.inventory import ROOT, Root
from flows.cli.runs import RunOptions, needs_no_server, start_server
from flows.service.service import log_in
from recalign.artifacts.lookup import open_existing
from recalign.artifacts.refreshes import REFRESHES
from recalign.chain import doubt_of_run, finished_run
from recalign.config import RecommendConfig
from recalign.config.presets import complete
from recalign.errors import UserError
from recalign.export.place import What
from recalign.report.refresh_history import refresh_rows, refreshes_in_words
from recalign.report.terminal import print_table

log = logging.getLogger(__name__)


def recommend_items(
    run: Annotated[str, typer.Argument(help="A report artifact; default: the newest.")] = "",
    latest: Annotated[bool, typer.Option("--latest", help="The newest report.")] = False,
    series: Annotated[str, typer.Option(help="The best round of this series.")] = "",
    users: Annotated[str, typer.Option(help="File of user ids, or all.")] = "all",
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items per user.")] = 10,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--include-seen", help="Leave out what a user has taken.")
    ] = True,
    interactions: Annotated[str, typer.Option(help="File of newer interactions.")] = "",
    candidates: Annotated[
        int, typer.Option(min=0, help="RosePO: SASRec's best, ranked anew by the LLM.")
    ] = 0,
    template: Annotated[str, typer.Option(help="The run's own prompt template.")] = "",
    refresh: Annotated[str, typer.Option(help="Add to this history; watch the drift.")] = "",
    output: Annotated[Path, typer.Option(help="What is written: .parquet or .csv.")] = Path(
        "recs.parquet"
    ),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="runtime.field=value; may be repeated.")
    ] = None,
    root: Root = ROOT,
) -> None:
    """Recommend items to every user, from everything they did up to now."""
    if latest and (run or series):
        raise UserError("--latest is the newest report: name no other run or series beside it")
    open_existing(root)
    asked = complete(
        RecommendConfig(),
        {
            "run": run,
            "series": series,
            "users": "" if users == "all" else users,
            "k": k,
            "exclude_seen": exclude_seen,
            "interactions": interactions,
            "candidates": candidates,
            "template": template,
            "output": str(output),
        },
    )
    options = RunOptions(settings=settings or [], root=root)
    if options.own:
        raise UserError(f"--set {options.own[0]}: recommend takes runtime.field=value alone")
    runtime = options.runtime()
    log_in(root)
    from flows.serving.nightly import from_same_data, recommend_nightly
    from flows.serving.recommend import check, hand_over, recommend
    from tasks.engine.run import Run

    walk = Run(runtime)
    chain, steps = check(asked, walk)  # mistakes, before a server starts
    if refresh:
        from_same_data(walk.store, REFRESHES.read(walk.store, refresh), asked, chain)
    if needs_no_server(steps) and not refresh:
        with walk.store.in_use():
            typer.echo(hand_over(walk.store, asked, steps[-1].reference))
        return
    start_server()
    state: Any = (
        recommend_nightly(refresh, asked, runtime, return_state=True)
        if refresh
        else recommend(asked, runtime, return_state=True)
    )
    state.result()  # raises what made the flow fail
    typer.echo(state.message)


def show_refreshes(
    name: Annotated[str, typer.Argument(help="Only this history, refresh by refresh.")] = "",
    root: Root = ROOT,
) -> None:
    """Show the refreshes of recommendations, and how well each foresaw what was taken since."""
    store = open_existing(root)
    if not name:
        told = map(refreshes_in_words, REFRESHES.all(store))
        none = f"no refresh at {root} yet; `recalign recommend --refresh NAME` makes one"
        typer.echo("\n".join(told) or none)
        return
    refreshes = REFRESHES.read(store, name)
    if not (rows := refresh_rows(refreshes)):
        known = ", ".join(one.name for one in REFRESHES.all(store))
        raise UserError(f"no refresh {name!r} at {root}; there are: {known or 'none'}")
    typer.echo(refreshes_in_words(refreshes))
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def export_model(
    to: Annotated[Path, typer.Option(help="Folder that is made.")],
    run: Annotated[str, typer.Argument(help="A report artifact; default: the newest.")] = "",
    what: Annotated[What, typer.Option(help="The aligned LLM, or what ranks.")] = "policy",
    merge: Annotated[
        bool, typer.Option("--merge", help="Add the adapter into the weights.")
    ] = False,
    push: Annotated[str, typer.Option(help="Hub id to upload to; token in HF_TOKEN.")] = "",
    root: Root = ROOT,
) -> None:
    """Write a run's LLM as a Hugging Face folder, or its recommender or oracle, with a card."""
    store, to = open_existing(root), to.expanduser()
    from recalign.export.place import require_private, upload
    from recalign.exports import export_run  # transformers: seconds

    if push:
        require_private(push)
    if merge and what != "policy":
        raise UserError(f"--merge is for an LLM's adapter: --what {what} has none")
    with store.in_use():
        report = finished_run(store, run)
        if what == "policy" and (doubt := doubt_of_run(store, report)):
            log.warning("%s", doubt)
        typer.echo(export_run(store, root, report, to, what, merge=merge))
    typer.echo(f"{what} in {to.resolve()}" + (f"; {upload(to, push)}" if push else ""))
