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
from recalign.evaluation.intervals import Measured
from recalign.metric_columns import CATALOGUE, RERANKED, Metric, metrics_in, primary_of
from recalign.report.terminal import print_table
from recalign.report.wording import TOO_FEW, interval, signed
from recalign.schemas import RESULTS, ROWS_PER_USER

Lineage = dict[str, Manifest]
CASES = ("phase", "n_cases")  # settings that say by which targets users are judged
LISTS = ("lists", "list_targets", "list_length")  # and, in drawn lists, among which items
RANK = ("evaluation", "recommendations")  # the stages with these settings


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
    if old.stage == "leaderboard":
        return  # of many runs: the nearest results are those of one of them
    judged = [_judged(store, lineage) for lineage in above]
    if judged[0] and judged[1]:
        _print_results(judged[0], judged[1], above)


def _judged(store: Store, lineage: Lineage) -> RunResults | None:
    """The results nearest to the artifact; None where it stands on none."""
    for made in lineage.values():
        if {RESULTS.file, ROWS_PER_USER.file} <= made.outputs.keys():
            artifact = store.open(made.reference)
            return RunResults(RESULTS.read(artifact), ROWS_PER_USER.read(artifact))
    return None


def _other_cases(above: tuple[Lineage, Lineage], metric: Metric) -> str:
    """Why a user does not mean the same in both runs; empty: judged by the same targets."""
    digests = [{m.digest for m in one.values() if m.stage == "splits"} for one in above]
    if digests[0] != digests[1]:
        return "other users or targets"
    # The nearest: reports and comparisons name their test before any validation.
    old, new = (next((m.config for m in one.values() if m.stage in RANK), {}) for one in above)
    names = CASES if metric.lists in (CATALOGUE, RERANKED) else CASES + LISTS
    differ = [name for name in names if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} and {new.get(name)}" for name in differ)


def _print_results(first: RunResults, second: RunResults, above: tuple[Lineage, Lineage]) -> None:
    """A line per row that both have, in the first metric that both have."""
    both = [one for one in metrics_in(first.results) if one in metrics_in(second.results)]
    if not both:
        return
    primary = primary_of(first.results)
    metric = primary if primary in both else both[0]
    other = _other_cases(above, metric)
    lines = [
        [one.row, _shown(one.first), _shown(one.second),
         _shown(one.difference, with_sign=True) if one.difference else ""]
        for one in rows_between_runs(first, second, metric, paired=not other)
    ]  # fmt: skip
    how = f"not told: {other}" if other else "paired by user"
    typer.echo(
        f"\n{metric.label}, with 95 % intervals over users alone: another training seed may change "
        f"more; difference: second - first, {how}"
    )
    print_table(["row", "first", "second", "difference"], lines)


def _shown(measured: Measured, with_sign: bool = False) -> str:
    mean, low, high = measured
    bounds = interval(low, high, with_sign) or TOO_FEW
    return f"{signed(mean) if with_sign else f'{mean:.4f}'} {bounds}"
