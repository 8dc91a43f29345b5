"""Commands over the artifact root: list, show, compare, check, delete."""

import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import typer
from filelock import Timeout
from rich.console import Console
from rich.table import Table

from recalign.artifacts.identity import differing
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.roots import is_url, open_root
from recalign.artifacts.series import all_series, read_series
from recalign.artifacts.store import Store
from recalign.errors import UserError
from recalign.report.series_history import beginnings, history, standing


def open_store(root: str) -> Store:
    """The store at `root`, which must exist: listing commands never create one."""
    if not is_url(root) and not Path(root).is_dir():
        raise UserError(f"no artifacts at {root}; run something, or name the folder with --root")
    return open_root(root)


def resolve(store: Store, name: str) -> Manifest:
    """The one artifact that `stage/digits`, or digits alone, stands for."""
    stage, _, digits = name.rpartition("/")
    if not digits:
        raise UserError("name an artifact by its stage/fingerprint or first digits, as in `ls`")
    found = [m for m in store.manifests(stage or None) if m.fingerprint.startswith(digits)]
    if not found:
        raise UserError(f"no artifact {name!r}; `recalign ls` lists them")
    if len(found) > 1:
        names = ", ".join(m.reference.name for m in found)
        raise UserError(f"{name!r} could be any of {names}")
    return found[0]


def list_artifacts(root: str, stage: str) -> None:
    """A line per artifact, oldest first."""
    rows = []
    manifests = list(open_store(root).manifests(stage or None))
    if stage and not manifests:
        raise UserError(f"no artifact of a stage {stage!r} at {root}")
    for manifest in manifests:
        size = sum(output.size for output in manifest.outputs.values())
        rows.append([
            manifest.reference.name, f"{manifest.created:%Y-%m-%d %H:%M:%S}",
            f"{manifest.seconds:.1f}", str(manifest.rows), str(sum(manifest.dropped.values())),
            f"{size / 1e6:.1f} MB",
        ])  # fmt: skip
    print_table(["artifact", "created", "seconds", "rows", "dropped", "size"], rows)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Columns side by side; a line per row also where the output is not a terminal."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 250).print(table)


def show_artifact(root: str, name: str) -> None:
    """The artifact's folder and manifest."""
    store = open_store(root)
    manifest = resolve(store, name)
    typer.echo(f"folder: {store.folder(manifest.stage, manifest.fingerprint)}")
    typer.echo(manifest.model_dump_json(indent=2))


def diff_artifacts(root: str, first: str, second: str) -> None:
    """A line per setting, input and figure in which two artifacts of one stage differ."""
    store = open_store(root)
    old, new = resolve(store, first), resolve(store, second)
    if old.stage != new.stage:
        raise UserError(f"{first} is a {old.stage}, {second} a {new.stage}: nothing to compare")
    lines = old.identity.differences(new.identity)
    told = [{"figures": one.figures, "rows": one.rows} for one in (old, new)]
    lines += differing(*told)
    typer.echo("\n".join(lines) or "no difference")


REPORTS = ("report", "comparison")  # stages that end a run with a page


def _reports(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The pages of finished runs among the manifests, in their order."""
    return [manifest for manifest in manifests if manifest.stage in REPORTS]


def report_path(root: str, name: str) -> None:
    """The path of the named report, or of the newest."""
    store = open_store(root)
    reports = [resolve(store, name)] if name else _reports(store.manifests())
    if not reports:
        raise UserError(f"no report at {root} yet; `recalign run dpo4rec` makes one")
    newest = reports[-1]
    if newest.stage not in REPORTS:
        raise UserError(f"{name} belongs to {newest.stage}: no report")
    typer.echo(store.open(newest.reference).path("report.html").resolve())


def show_series(root: str, name: str) -> None:
    """How every series stands, or the history of the named one."""
    store = open_store(root)
    if not name:
        lines = [standing(series) for series in all_series(store)]
        typer.echo(
            "\n".join(lines) or f"no series at {root} yet; the flow dpo4rec-rounds makes one"
        )
        return
    series = read_series(store, name)
    if not series.generations:
        known = ", ".join(series.name for series in all_series(store))
        raise UserError(f"no series {name!r} at {root}; there are: {known or 'none'}")
    rows = history(series)
    typer.echo("\n".join([standing(series), *beginnings(series)]))
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def verify_artifacts(root: str) -> None:
    """A line per damaged file; manifests that cannot be read count."""
    store = open_store(root)
    damaged = 0
    manifests = list(store.manifests())
    for manifest in manifests:
        for wrong in store.check(manifest):
            typer.echo(f"{manifest.reference.name}: {wrong}")
            damaged += 1
    for folder in store.without_manifest():
        typer.echo(f"{folder.parent.name}/{folder.name[:10]}: manifest.json is missing or garbled")
        damaged += 1
    typer.echo(f"{len(manifests)} artifacts, {damaged} damaged files")
    if damaged:
        raise typer.Exit(3)


def collect_garbage(root: str, keep: int, dry_run: bool) -> None:
    """Delete what no series and none of the `keep` newest reports of a method stands on.

    What is newer than the newest report belongs to a run that may go on: it stays. UserError
    during a run.
    """
    store = open_store(root)
    if dry_run:
        _collect(store, keep, dry_run)
        return
    with store.alone() as free:
        if not free:
            raise UserError(f"a run is at work at {root}: collect garbage when it is done")
        _collect(store, keep, dry_run)


def _collect(store: Store, keep: int, dry_run: bool) -> None:
    root = store.root
    manifests = {m.fingerprint: m for m in store.manifests()}
    reports = _reports(manifests.values())
    pointed = [
        reference for s in all_series(store) if s.latest for reference in s.latest.stages.values()
    ]
    if manifests and not (reports or pointed):
        raise UserError(f"no report at {root} yet: everything would go; finish a run first")
    ends = reports + [manifests[r.fingerprint] for r in pointed if r.fingerprint in manifests]
    last = max((m.created for m in ends), default=datetime.now(UTC))
    newest = [m for s in REPORTS for m in [one for one in reports if one.stage == s][-keep:]]
    unfinished = [m for m in manifests.values() if m.created > last]
    kept = _lineage([m.reference for m in newest + unfinished] + pointed, manifests)
    doomed = [m for m in manifests.values() if m.fingerprint not in kept]
    for manifest in doomed:
        typer.echo(f"delete {manifest.reference.name}")
        if not dry_run:
            with store.lock(manifest.stage, manifest.fingerprint):
                store.discard(manifest.stage, manifest.fingerprint)
    leftovers = [path for path in store.root.glob("*/.draft-*") if _is_abandoned(store, path, last)]
    leftovers += [*store.root.glob("*/.trash-*"), *store.root.glob("*/.fetch-*")]
    leftovers += store.without_manifest()
    for path in leftovers:
        typer.echo(f"delete {path.relative_to(store.root)}")
        if not dry_run:
            shutil.rmtree(path)
    if unfinished:
        typer.echo(f"kept for a run without a report yet: {len(unfinished)} artifacts")
    typer.echo(f"{len(kept)} artifacts kept, {len(doomed)} and {len(leftovers)} leftovers deleted"
               + (" (not really: --dry-run)" if dry_run else ""))  # fmt: skip


def _is_abandoned(store: Store, draft: Path, last: datetime) -> bool:
    """Whether no process is filling this draft, and a run has ended since one did."""
    if draft.stat().st_mtime > last.timestamp():
        return False
    try:
        with store.lock(draft.parent.name, draft.name.removeprefix(".draft-")).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _lineage(roots: list[Reference], manifests: dict[str, Manifest]) -> set[str]:
    """Fingerprints of these artifacts and of everything they were made from."""
    kept: set[str] = set()
    queue = list(roots)
    while queue:
        reference = queue.pop()
        if reference.fingerprint in kept or reference.fingerprint not in manifests:
            continue
        kept.add(reference.fingerprint)
        queue.extend(manifests[reference.fingerprint].inputs.values())
    return kept
