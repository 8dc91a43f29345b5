"""Commands that tell what lies under the artifact root: ls, show, report, series."""

from typing import Annotated

import typer

from flows.methods import REPORTS
from recalign.artifacts.lookup import of_stages, open_existing, resolve
from recalign.artifacts.series import SERIES
from recalign.config.runtime import checked_root
from recalign.errors import UserError
from recalign.report import PAGE
from recalign.report.series_history import beginnings, history, standing
from recalign.report.terminal import print_table

ROOT = "artifacts"
Root = Annotated[
    str,
    typer.Option(
        help="Folder or URL (s3://...) of all artifacts.",
        envvar="RECALIGN_ROOT",
        callback=checked_root,
    ),
]
Named = Annotated[str, typer.Argument(help="stage/fingerprint, or its first digits.")]


def list_artifacts(
    stage: Annotated[str, typer.Argument(help="Only this stage.")] = "", root: Root = ROOT
) -> None:
    """List the artifacts, oldest first."""
    rows = []
    manifests = list(open_existing(root).manifests(stage or None))
    if stage and not manifests:
        raise UserError(f"no artifact of a stage {stage!r} at {root}")
    for manifest in manifests:
        size = sum(output.size for output in manifest.outputs.values())
        made, seconds = f"{manifest.created:%Y-%m-%d %H:%M:%S}", f"{manifest.seconds:.1f}"
        counts = [str(manifest.rows), str(sum(manifest.dropped.values()))]
        rows.append([manifest.reference.name, made, seconds, *counts, f"{size / 1e6:.1f} MB"])
    print_table(["artifact", "created", "seconds", "rows", "dropped", "size"], rows)


def show_artifact(artifact: Named, root: Root = ROOT) -> None:
    """Show an artifact's folder and manifest."""
    store = open_existing(root)
    manifest = resolve(store, artifact)
    typer.echo(f"folder: {store.folder(manifest.stage, manifest.fingerprint)}")
    typer.echo(manifest.model_dump_json(indent=2))


def report_path(
    artifact: Annotated[str, typer.Argument(help="A report artifact; default: the newest.")] = "",
    root: Root = ROOT,
) -> None:
    """Print the path of a report."""
    store = open_existing(root)
    found = [resolve(store, artifact)] if artifact else of_stages(store, REPORTS)
    reports = [one for one in found if one.stage in REPORTS]
    if artifact and not reports:
        raise UserError(f"{artifact} belongs to {found[0].stage}: no report")
    if not reports:
        raise UserError(f"no report at {root} yet; `recalign run dpo4rec` makes one")
    typer.echo(store.open(reports[-1].reference).path(PAGE).resolve())


def show_series(
    name: Annotated[str, typer.Argument(help="Only this series, round by round.")] = "",
    root: Root = ROOT,
) -> None:
    """Show how the series of scheduled rounds stand."""
    store = open_existing(root)
    if not name:
        none = f"no series at {root} yet; the flow dpo4rec-rounds makes one"
        typer.echo("\n".join(map(standing, SERIES.all(store))) or none)
        return
    series = SERIES.read(store, name)
    if not series.generations:
        known = ", ".join(series.name for series in SERIES.all(store))
        raise UserError(f"no series {name!r} at {root}; there are: {known or 'none'}")
    rows = history(series)
    typer.echo("\n".join([standing(series), *beginnings(series)]))
    print_table(list(rows[0]), [list(row.values()) for row in rows])
