"""Commands that keep the artifact root sound and small: verify, gc."""

import re
import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from filelock import Timeout

from flows.cli.inventory import ROOT, Root
from flows.methods import ENDS, REPORTS
from recalign.artifacts.kept_rows import BY_LLM
from recalign.artifacts.lookup import open_existing
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.refreshes import REFRESHES
from recalign.artifacts.series import SERIES
from recalign.artifacts.store import Store
from recalign.artifacts.sweep_notes import reports_of_sweeps
from recalign.errors import UserError

CLOCKS_APART = timedelta(minutes=10)  # what the clocks of machines that share a root may differ by


def verify_artifacts(root: Root = ROOT) -> None:
    """Hash every file of every artifact again; exit code 3 when one is damaged."""
    store = open_existing(root)
    manifests, unreadable, damaged = list(store.manifests()), store.without_manifest(), 0
    if not (manifests or unreadable):  # a script must not take a mistyped root for a sound one
        raise UserError(f"no artifact at {store.root}; name the folder with --root")
    for manifest in manifests:
        for wrong in store.check(manifest):
            typer.echo(f"{manifest.reference.name}: {wrong}")
            damaged += 1
    for folder in unreadable:
        typer.echo(f"{folder.parent.name}/{folder.name[:10]}: manifest.json is missing or garbled")
        damaged += 1
    typer.echo(f"{len(manifests)} artifacts, {damaged} damaged files")
    if damaged:
        raise typer.Exit(3)


def collect_garbage(
    keep: Annotated[int, typer.Option(min=1, help="Newest reports whose lineage is kept.")] = 3,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would be deleted.")] = False,
    root: Root = ROOT,
) -> None:
    """Delete what no series, refresh, unfinished sweep or newest report stands on.

    Leftovers of killed runs go, too.
    """
    store = open_existing(root)
    if not any(store.manifests()):  # what looks like a leftover here may be anybody's
        raise UserError(f"no artifact at {store.root}: nothing here is known to be ours to delete")
    with nullcontext(True) if dry_run else store.alone() as free:
        if not free:
            raise UserError(f"a run is at work at {root}: collect garbage when it is done")
        _collect(store, keep, dry_run)


def _collect(store: Store, keep: int, dry_run: bool) -> None:
    """What is newer than the newest report belongs to a run that may go on: it stays.

    Not so what was handed out since: it goes with the next refresh.
    """
    from flows.serving.nightly import STAGES as HANDED_OUT  # Prefect: seconds

    manifests = {m.fingerprint: m for m in store.manifests()}
    _require_order(manifests.values())
    reports = [m for m in manifests.values() if m.stage in REPORTS]
    pointed = [r for s in SERIES.all(store) if s.latest for r in s.latest.stages.values()]
    ends = [m for m in reports if m.stage in ENDS]  # a page that compares them ends no run
    ends += [manifests[r.fingerprint] for r in pointed if r.fingerprint in manifests]
    in_use = [r.last for r in REFRESHES.all(store) if r.last]
    pointed += [
        one for last in in_use for one in (last.serving, last.histories, last.report) if one
    ]
    pointed += _of_sweeps_at_work(store, manifests)
    if not (reports or pointed):
        raise UserError(f"no report at {store.root} yet: everything would go; finish a run first")
    last = max(map(_finished, ends), default=datetime.now(UTC))
    newest = [m for s in REPORTS for m in [one for one in reports if one.stage == s][-keep:]]
    passing = {stage.name for stage in HANDED_OUT} | set(REPORTS)
    newer = [m for m in manifests.values() if _finished(m) > last]
    unfinished = [m for m in newer if m.stage not in passing]
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
    leftovers += records_of_failures(store.root)
    by_llm = (store.root / ".cache" / BY_LLM).glob("*")
    llms = kept | {manifests[fingerprint].digest for fingerprint in kept}
    leftovers += [path for path in by_llm if path.name not in llms]
    for path in leftovers:
        typer.echo(f"delete {path.relative_to(store.root)}")
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if unfinished:
        typer.echo(f"kept for a run without a report yet: {len(unfinished)} artifacts")
    ending = " (not really: --dry-run)" if dry_run else ""
    deleted = f"{len(doomed)} and {len(leftovers)} leftovers deleted"
    typer.echo(f"{len(kept)} artifacts kept, {deleted}{ending}")


def _of_sweeps_at_work(store: Store, manifests: dict[str, Manifest]) -> list[Reference]:
    """The reports of sweeps that have not ended, told as kept."""
    found: list[Reference] = []
    for note, named in reports_of_sweeps(store).items():
        there = [manifests[key].reference for key in named if key in manifests]
        if there:
            typer.echo(f"kept for a sweep that has not ended ({note}): {len(there)} runs")
        found += there
    return found


def records_of_failures(root: Path) -> list[Path]:
    """What Prefect wrote of stages that failed, under random names; nothing reads it again."""
    named = [path for path in root.iterdir() if re.fullmatch("[0-9a-f]{32}", path.name)]
    return sorted(path for path in named if path.is_file())


def _require_order(manifests: Iterable[Manifest]) -> None:
    """UserError where a clock ran ahead: the newest is what may stay, and it cannot be told."""
    now = datetime.now(UTC)
    for made in manifests:
        if made.created > now + CLOCKS_APART:
            raise UserError(
                f"{made.reference.name} says that it was made at {made.created:%Y-%m-%d %H:%M} and "
                f"it is {now:%Y-%m-%d %H:%M}, so what is newest cannot be told: set the clock, or "
                f"delete that artifact"
            )


def _finished(made: Manifest) -> datetime:
    """When the stage was done; `created` is when it began."""
    return made.created + timedelta(seconds=made.seconds)


def _is_abandoned(store: Store, draft: Path, last: datetime) -> bool:
    """Whether no process is filling this draft, and a run has ended since one did."""
    written = max(path.stat().st_mtime for path in (draft, *draft.rglob("*")))
    if written > last.timestamp():
        return False
    try:
        with store.lock(draft.parent.name, draft.name.removeprefix(".draft-")).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _lineage(roots: list[Reference], manifests: dict[str, Manifest]) -> set[str]:
    """Fingerprints of these artifacts and of everything they were made from."""
    kept: set[str] = set()
    queue = [reference.fingerprint for reference in roots]
    while queue:
        key = queue.pop()
        if key in manifests and key not in kept:
            kept.add(key)
            queue += [reference.fingerprint for reference in manifests[key].inputs.values()]
    return kept
