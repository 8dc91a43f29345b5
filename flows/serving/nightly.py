"""Recommendations on a schedule: only active users cost anything, and drift is watched."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from filelock import Timeout
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.serving import recommend
from flows.session import alone, begin_session, prepare, settle, titled
from recalign.artifacts.journals import Name
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.refreshes import REFRESHES, Drift, Refresh, Refreshes, refreshed_from
from recalign.artifacts.series import SERIES
from recalign.artifacts.store import Store
from recalign.chain import data_set, finished_run
from recalign.config import DriftConfig, RecommendConfig, Runtime
from recalign.report.refresh_history import drift_curve, refresh_rows, refreshes_in_words
from recalign.report.stage_page import escape, picture
from recalign.schemas import SERVING
from recalign.serving.output import check_output, write_output
from tasks.drift import drift
from tasks.engine.run import Run, first_start
from tasks.engine.run_names import announce, start_of

log = logging.getLogger(__name__)

STAGES = (*recommend.STAGES, drift)


@flow(name="recommend-nightly", description=__doc__, validate_parameters=False)
def recommend_nightly(
    name: Annotated[Name, titled("History")] = "nightly",
    config: Annotated[RecommendConfig, titled(RecommendConfig.heading)] = RecommendConfig(),
    runtime: Annotated[Runtime, titled(Runtime.heading)] = Runtime(),
) -> Any:
    """Refresh a table of recommendations, and compare the last one with what was taken since.

    Args:
        name: Name of the history (a-z, 0-9, -); `recalign refreshes NAME` shows it.
        config: For whom, from what, and where the table is written.
        runtime: Where and how to compute; changes nothing in the results.
    """
    begin_session()
    config = settle(start_of(RecommendConfig(), "config"), config)
    run = Run(settle(start_of(Runtime(), "runtime"), runtime))

    def work() -> str:
        announce(f"refresh {name}: {recommend.run_name(config)}", "recommend", f"refresh: {name}")
        with run.store.in_use():
            if config.series:
                wait_for_round(run.store, config.series)
            return refresh(run, name, config)

    return alone(REFRESHES.lock(run.store, name), run.store.patience, f"refresh {name}", work)


def wait_for_round(store: Store, series: str) -> None:
    """Until no round of the series is under way: its policy may be the best.

    Nothing is held after that: a round that falls due during the refresh would be skipped.
    """
    lock = SERIES.lock(store, series)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waits for the round of series %s", series)
        lock.acquire()
    lock.release()


def refresh(run: Run, name: str, config: RecommendConfig) -> str:
    """One refresh; its table replaces the last, as a whole, then the history tells of it."""
    started, me = datetime.now(UTC), flow_run.id or str(uuid4())
    before = REFRESHES.read(run.store, name)
    last = before.last
    if last and last.run == me:  # a retry of what is done
        return refreshes_in_words(before)
    check_output(config.output, config.given)
    chain = recommend.chosen(run.store, config)
    before = from_same_data(run.store, before, config, chain)
    prepare(run, STAGES, lambda walk: stages(walk, config, chain, last))
    served, watched = stages(run, config, chain, last)
    made = run.store.open(served)
    recommend.warn(run.store, config)
    path = write_output(made.path(SERVING.file), config.output)
    at = {"run": me, "started": started, "finished": datetime.now(UTC)}
    new = Refresh(
        serving=served,
        histories=made.manifest.inputs["histories"],
        policy=chain.policy,
        output=str(path),
        drift=watched and drift_of(run.store, watched),
        report=finished_run(run.store, config.run).reference if config.run else None,
        **at,
        **counts(run.store, made.manifest, first_start() or started),
    )
    after = before.model_copy(update={"refreshes": [*before.refreshes, new]})
    told = f"{refreshes_in_words(after)}; {recommend.in_words(run.store, made.manifest, path)}"
    REFRESHES.write(run.store, after)
    show(after, told)
    return told


def from_same_data(
    store: Store, before: Refreshes, config: RecommendConfig, chain: recommend.AnyChain
) -> Refreshes:
    """The history so far; UserError where what recommends is of another data set than its tables.

    The newest report may be that of a demo or a sweep at the same root.
    """
    if before.last and not before.source:  # a file of an earlier version
        kept = data_set(store, before.last.histories)
        before = before.model_copy(update={"source": kept})
    by = f"series {config.series}" if config.series else config.run or "the newest report"
    return refreshed_from(before, data_set(store, chain.interactions), by)


def stages(
    run: Run, config: RecommendConfig, chain: recommend.AnyChain, last: Refresh | None
) -> tuple[Reference, Reference | None]:
    """The new table, and how well the last one foresaw what is new since (None: there is none)."""
    world = recommend.world_of(run, config, chain)
    served = recommend.served(run, config, chain, world)
    if last is None or last.histories.fingerprint == world.fingerprint:
        return served, None
    lists = _as_it_was(run.store, last.serving)
    if lists is None or _as_it_was(run.store, last.histories) is None:
        return served, None
    inputs = {"served": last.serving, "before": last.histories, "histories": world}
    usual = DriftConfig()
    judged = usual.model_copy(update={"k": min(usual.k, lists.config["k"])})  # no list is longer
    return served, run(drift, judged, inputs)


def _as_it_was(store: Store, one: Reference) -> Manifest | None:
    """Of what was handed out; None where it was deleted by hand, or computed anew since."""
    found = store.known(one.stage, one.fingerprint)
    return found if found and found.digest == one.digest else None


def drift_of(store: Store, reference: Reference) -> Drift | None:
    """The figures of a drift; None where nobody took anything."""
    made = store.open(reference).manifest
    figures = made.figures
    if not figures["users"]:
        return None
    return Drift(
        artifact=reference,
        k=made.config["k"],
        ndcg=figures["ndcg"],
        low=figures.get("ndcg_low"),
        high=figures.get("ndcg_high"),
        users=figures["users"],
    )


def counts(store: Store, serving: Manifest, started: datetime) -> dict[str, int]:
    """Users, and how many texts (or an LLM's lists) were made for this refresh or kept."""
    texts = serving.inputs.get("reasonings")
    made = store.open(texts).manifest if texts else serving
    names = ("texts_written", "texts_kept") if texts else ("lists_made", "lists_kept")
    new, kept = (made.figures[name] for name in names)
    if made.created < started:  # the very same as before
        new, kept = 0, new + kept
    users = {name: serving.figures[name] for name in ("users", "users_listed")}
    return users | {"texts_written": new, "texts_kept": kept}


def show(refreshes: Refreshes, told: str) -> None:
    """The history on the run's page: its table, and its curve."""
    if FlowRunContext.get() is None:
        return
    key = f"refreshes-{refreshes.name}"
    create_table_artifact(key=key, table=refresh_rows(refreshes), description=f"# {escape(told)}")
    curve = drift_curve(refreshes)
    if curve:
        create_markdown_artifact(key=f"drift-{refreshes.name}", markdown=picture(curve))
