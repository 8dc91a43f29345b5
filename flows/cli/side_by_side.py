"""Earlier runs side by side: which settings and training seeds they had, and their leaderboard."""

from collections.abc import Mapping, Sequence

from flows.methods import METHODS
from recalign.artifacts.artifact import Artifact
from recalign.artifacts.lineage import lineage, settings_of, without_seeds
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store
from recalign.config import LeaderboardConfig, Runtime, ShownCell, ShownSetting
from recalign.errors import UserError
from tasks.engine.stage import Call
from tasks.leaderboard import leaderboard

CHOSEN = {"aligned", "evaluation", "refused"}  # inputs of a report that its best round decides
N_NAMED = 3  # settings in the label of a run; one that differs in more has its own name
TRAINED = {name.partition(".")[0] for method in METHODS for name in method.config.seeds}
"""Stages whose seed is part of a training seed; another's, as that of resamples, is a setting."""


def compare_runs(store: Store, reports: Sequence[Manifest], runtime: Runtime) -> Artifact:
    """The leaderboard of the runs that these reports end.

    The stage is called without Prefect: it reads what is there, and takes seconds. UserError: too
    few runs, one of them twice, or runs whose users cannot be paired.
    """
    names = [one.reference.name for one in reports]
    if len(names) < 2:
        raise UserError("name two or more runs by their reports, as `recalign ls` lists them")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{twice[0]} is given twice")
    config = shown_runs(store, reports)
    inputs = {f"cell_{number}": one.reference for number, one in enumerate(reports)}
    identity = leaderboard.identity(config, inputs, {})
    with store.in_use():
        return store.open(leaderboard.compute(Call(identity, config, inputs, {}, runtime)))


def shown_runs(store: Store, reports: Sequence[Manifest]) -> LeaderboardConfig:
    """Runs that differ in training seeds alone are one setting, called by what differs otherwise.

    Runs that differ in what is no stage's setting (a file, the version of a stage, where a setting
    counts), or in many, have their own names.
    """
    made = [_settings(store, report) for report in reports]
    differ = [name for name in dict.fromkeys(name for one in made for name in one)
              if len({one.get(name) for one in made}) > 1]  # fmt: skip
    seeds = sorted(name for name in differ
                   if name.endswith(".seed") and name.partition(".")[0] in TRAINED)  # fmt: skip
    values = [[f"{name}={one.get(name, '-')}" for name in differ if name not in seeds]
              for one in made]  # fmt: skip
    first = {
        tuple(own): one.reference.name for own, one in zip(values[::-1], reports[::-1], strict=True)
    }
    labels = [", ".join(own) or "same settings" if len(own) <= N_NAMED else first[tuple(own)]
              for own in values]  # fmt: skip
    labels = _told_apart(labels, [without_seeds(store, one, TRAINED) for one in reports], reports)
    # A seed that does not count in some run would keep it from sharing a number with any other.
    everywhere = [name for name in seeds if all(name in one for one in made)]
    cells = _numbered(labels, made, everywhere) or _numbered(labels, made, seeds)
    notes = [*_never_changed(made), *_shared(labels, made, seeds)] if seeds and cells else []
    if not cells:
        labels = [report.reference.name for report in reports]
        cells = [(label, 0) for label in labels]
    given = dict(zip(labels, values, strict=True))
    return LeaderboardConfig(
        title="Runs side by side",
        settings=[ShownSetting(label=label, values=own) for label, own in given.items()],
        cells=[ShownCell(setting=label, seed=number) for label, number in cells],
        notes=notes,
    )


def _told_apart(
    labels: Sequence[str], made_from: Sequence[Mapping[str, str]], reports: Sequence[Manifest]
) -> list[str]:
    """The labels, but each run's own name where runs of one label differ in more than seeds.

    What the runs both have is held together: one may have ended its rounds before the other.
    """

    def alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
        return all(one[name] == other[name] for name in one.keys() & other.keys() - CHOSEN)

    found = list(zip(labels, made_from, strict=True))
    mixed = {
        label
        for label, one in found
        for also, other in found
        if label == also and not alike(one, other)
    }
    return [report.reference.name if label in mixed else label
            for label, report in zip(labels, reports, strict=True)]  # fmt: skip


def _numbered(
    labels: Sequence[str], made: Sequence[Mapping[str, str]], seeds: Sequence[str]
) -> list[tuple[str, int]]:
    """Label and number of every run: one number for each draw of these seeds; empty: some agree.

    The number is the seed itself where a run has the same in all stages, else its draw's place in
    order: in what order runs are named makes no difference to which setting is chosen.
    """
    # Where stages of one run have several seeds, as rounds may, they stand there as "4/10".
    drawn = [
        tuple(tuple(int(n) for n in one.get(name, "-1").split("/")) for name in seeds)
        for one in made
    ]
    places = {seed: place for place, seed in enumerate(sorted(set(drawn)))}
    if all(len(set(seed)) == 1 and len(seed[0]) == 1 for seed in drawn):
        places = {seed: seed[0][0] for seed in drawn}
    cells = [(label, places[seed]) for label, seed in zip(labels, drawn, strict=True)]
    return cells if len(set(cells)) == len(cells) else []


def _never_changed(made: Sequence[Mapping[str, str]]) -> list[str]:
    """Which training seeds are one and the same in all runs: intervals know nothing of others."""
    names = sorted({name for method in METHODS for name in method.config.seeds})
    drawn = {name: {one.get(name) for one in made} for name in names}
    same = [name for name in names if len(drawn[name]) == 1 and None not in drawn[name]]
    told = ", ".join(f"{name} = {made[0][name]}" for name in same)
    return [f"The same in all runs, so that intervals do not hold for others: {told}"] * bool(same)


def _shared(
    labels: Sequence[str], made: Sequence[Mapping[str, str]], seeds: Sequence[str]
) -> list[str]:
    """Which varied seeds several runs of one setting have in common: these are no new draws."""
    shared = []
    for name in seeds:
        drawn = [(label, one[name]) for label, one in zip(labels, made, strict=True) if name in one]
        if len(set(drawn)) < len(drawn):
            shared.append(name)
    told = f"Some runs of one setting share {', '.join(shared)}: they count as drawn apart all the"
    return [f"{told} same, which makes intervals too narrow"] * bool(shared)


def _settings(store: Store, report: Manifest) -> dict[str, str]:
    """What a run was made with; its page's own settings make no difference to its figures."""
    above = lineage(store, [report])
    del above[report.fingerprint]
    return settings_of(above.values())
