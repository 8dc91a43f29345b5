"""Scheduled DPO4Rec: every run advances a series by one round, from the last good one."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from prefect import flow, get_client
from prefect.artifacts import create_table_artifact
from prefect.runtime import deployment, flow_run

from flows.dpo4rec import STAGES, Rounds, begin, why_ended
from flows.session import (
    alone,
    begin_session,
    finish,
    plan,
    prepare,
    settings_in_words,
    settle,
    titled,
)
from recalign.artifacts.journals import Name
from recalign.artifacts.series import (
    SERIES,
    Generation,
    Series,
    SeriesRound,
    continued_with,
    why_new,
)
from recalign.config import DPO4RecConfig, RoundsConfig, Runtime
from recalign.report.series_history import history, standing
from tasks.engine.run import Run
from tasks.engine.run_names import announce, start_of
from tasks.interactions import raw_files

USUAL = DPO4RecConfig(rounds=RoundsConfig(n=20, patience=2))


@flow(
    name="dpo4rec-rounds",
    description=__doc__,
    validate_parameters=False,
)
def dpo4rec_rounds(
    series: Annotated[Name, titled("Series")] = "dpo4rec",
    config: Annotated[DPO4RecConfig, titled(DPO4RecConfig.heading)] = USUAL,
    runtime: Annotated[Runtime, titled(Runtime.heading)] = Runtime(),
    new_source: Annotated[str, titled("Another data source")] = "",
) -> Any:
    """Compute the next round of a series; when validation no longer rises, judge the best one.

    Args:
        series: Name of the series (a-z, 0-9, -); `recalign series NAME` shows its history.
        config: Settings of every stage; changing them, or the source, begins a new generation.
        runtime: Where and how to compute; changes nothing in the results.
        new_source: Name of another data source than the series began with, to go on with that one.
    """
    begin_session()
    config = settle(start_of(USUAL, "config"), config)
    run = Run(settle(start_of(Runtime(), "runtime"), runtime))

    def work() -> str:
        with run.store.in_use():
            return advance(run, series, config, new_source)

    return alone(SERIES.lock(run.store, series), run.store.patience, f"series {series}", work)


def advance(run: Run, name: str, config: DPO4RecConfig, new_source: str) -> str:
    """One round on top of the last good one; the pointer moves last. Returns how it stands."""
    started, me = datetime.now(UTC), flow_run.id or str(uuid4())
    before = continued_with(SERIES.read(run.store, name), config.interactions.place, new_source)
    raw_files(config.interactions, run.runtime)  # whether they are new decides all that follows
    good, kept = good_rounds(run, before, config)
    number = len(good) or max(1, kept)  # the base policy is round 0
    if good and (good[-1].run == me or why_ended([r.validation for r in good], config.rounds)):
        number -= 1  # a retry whose round is good already, or a series at its end
    data = config.interactions.name
    marks = "dpo4rec", f"data: {data}", f"series: {name}"
    announce(f"series {name}: round {number} on {data}", *marks)
    prepare(run, STAGES, lambda walk: walk_to(walk, config, number), settings_in_words(config))

    rounds = walk_to(run, config, number)
    page = finish(run, rounds.judge()) if rounds.ended else ""
    new = new_rounds(rounds, len(good), me, started)
    after = _extended(run, before, [*good, *new], rounds.ended, bool(good))
    told = standing(after) + (f"; report: {page}" if page else "")
    create_table_artifact(key=f"series-{name}", table=history(after), description=f"# {told}")
    if rounds.ended:
        told += _pause_schedules()
    if after != before:
        SERIES.write(run.store, after)
    return told


def walk_to(run: Run, config: DPO4RecConfig, number: int) -> Rounds:
    """DPO4Rec up to and including this round, or to where the guard ends the rounds before it."""
    rounds = begin(run, config)
    for _ in range(number):
        rounds.advance()
    return rounds


def new_rounds(rounds: Rounds, first: int, run: str, started: datetime) -> list[SeriesRound]:
    """The rounds from this number on; none where the guard refused the next one."""
    scores = [score for score in rounds.scores if score is not None]
    policies, finished = [None, *rounds.aligned], datetime.now(UTC)
    return [
        SeriesRound(
            number=n,
            validation=scores[n],
            alignment=policies[n],
            run=run,
            started=started,
            finished=finished,
        )
        for n in range(first, len(policies))
    ]


def good_rounds(run: Run, series: Series, config: DPO4RecConfig) -> tuple[list[SeriesRound], int]:
    """The rounds of the latest generation, if this source and these settings still lead to them.

    Beside them the last round whose policy they lead to: where only the yardstick changed there are
    policies without good rounds, which a new generation has validated anew.
    """
    if series.latest is None:
        return [], 0
    rounds = series.latest.rounds
    steps = plan(Run(run.runtime), lambda walk: walk_to(walk, config, rounds[-1].number))
    lead_to = {step.label: step.reference.fingerprint for step in steps}
    same = all(  # validations too: rounds that two yardsticks measured are not to be compared
        lead_to.get(label) == made.fingerprint
        for label, made in series.latest.stages.items()
        if label.startswith(("alignment, ", "validation, "))
    )
    there = {step.reference.fingerprint for step in steps if step.action == "reuse"}
    kept = [one.number for one in rounds if one.alignment and one.alignment.fingerprint in there]
    return rounds if same else [], max(kept, default=0)


def _extended(
    run: Run, series: Series, rounds: list[SeriesRound], ended: str, same: bool
) -> Series:
    """The series with these rounds in its latest generation, or in a new one."""
    stages = {
        step.label: step.reference.model_copy(update={"digest": ""})  # known only if reused
        for step in run.steps
    }
    latest = series.latest
    if latest and same:
        told = latest.model_copy(update={"rounds": rounds, "stages": stages, "ended": ended})
        return series.model_copy(update={"generations": [*series.generations[:-1], told]})
    reason = why_new(run.store, latest.stages, stages) if latest else "the first"
    told = Generation(
        began=rounds[0].started, reason=reason, rounds=rounds, stages=stages, ended=ended
    )
    past = [old.model_copy(update={"stages": {}}) for old in series.generations]
    return series.model_copy(update={"generations": [*past, told]})


def _pause_schedules() -> str:
    """Pause the schedules of the deployment that runs this, if one does; tells what was done."""
    if not deployment.id:
        return "; no deployment runs this, so there is no schedule to pause"
    place = UUID(deployment.id)
    with get_client(sync_client=True) as client:
        schedules = client.read_deployment_schedules(place)
        for schedule in schedules:
            if schedule.active:
                client.update_deployment_schedule(place, schedule.id, active=False)
    again = "; the schedule is paused: activate it again when the source has grown"
    return again if schedules else ""
