"""The command diff: two artifacts, their whole lineages, and the results they led to."""

import typer

from flows.cli.inventory import ROOT, Named, Root
from recalign.artifacts.identity import differing
from recalign.artifacts.lineage import upwards
from recalign.artifacts.lineage_differences import settings_between
from recalign.artifacts.lookup import open_existing, resolve
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store
from recalign.errors import UserError
from recalign.evaluation.between_runs import RunResults, rows_between_runs
from recalign.metric_columns import metrics_in, primary_of
from recalign.report.terminal import print_table
from recalign.report.wording import interval, signed
from recalign.schemas import RESULTS, ROWS_PER_USER

Lineage = dict[str, Manifest]


def diff_artifacts(first: Named, second: Named, root: Root = ROOT) -> None:
    """Tell in which settings, up the whole lineage, and in which results two artifacts differ."""
    store = open_existing(root)
    old, new = resolve(store, first), resolve(store, second)
    if old.stage != new.stage:
        raise UserError(
            f"{first} is of stage {old.stage}, {second} of stage {new.stage}: nothing to compare"
        )
    above = dict(upwards(store, [old])), dict(upwards(store, [new]))
    told = [{"figures": one.figures, "rows": one.rows} for one in (old, new)]
    lines = settings_between(*above) + differing(*told)
    typer.echo("\n".join(lines) or "no difference")
    judged = [_judged(store, lineage) for lineage in above]
    if judged[0] and judged[1]:
        _print_results(judged[0], judged[1], _same_cases(*above))


def _judged(store: Store, lineage: Lineage) -> RunResults | None:
    """The results nearest to the artifact; None where it stands on none."""
    for made in lineage.values():
        if {RESULTS.file, ROWS_PER_USER.file} <= made.outputs.keys():
            artifact = store.open(made.reference)
            return RunResults(RESULTS.read(artifact), ROWS_PER_USER.read(artifact))
    return None


def _same_cases(old: Lineage, new: Lineage) -> bool:
    """Whether both runs judged the same users by the same targets."""
    digests = [{m.digest for m in one.values() if m.stage == "splits"} for one in (old, new)]
    return digests[0] == digests[1]


def _print_results(first: RunResults, second: RunResults, paired: bool) -> None:
    """A line per row that both have, in the first metric that both have."""
    both = [one for one in metrics_in(first.results) if one in metrics_in(second.results)]
    if not both:
        return
    primary = primary_of(first.results)
    metric = primary if primary in both else both[0]
    lines = [
        [one.row, _shown(one.first), _shown(one.second),
         signed(one.difference[0]) + f" {interval(*one.difference[1:])}" if one.difference else ""]
        for one in rows_between_runs(first, second, metric, paired)
    ]  # fmt: skip
    how = "paired by user" if paired else "not told: other users or targets"
    typer.echo(f"\n{metric.label}, with 95 % intervals; difference: second - first, {how}")
    print_table(["row", "first", "second", "difference"], lines)


def _shown(estimate: tuple[float, float, float]) -> str:
    mean, low, high = estimate
    return f"{mean:.4f} {interval(low, high)}"
