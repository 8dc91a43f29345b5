"""Recommendations of a finished run for all users, from everything they did up to now."""

import logging
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from flows.session import prepare, settle, titled
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.store import Store
from recalign.chain import (
    METHOD_REPORTS,
    Chain,
    TitleChain,
    chain_of_run,
    chain_of_series,
    doubt_of_run,
    doubt_of_series,
    finished_run,
    title_chain_of_run,
)
from recalign.config import InteractionsConfig, RecommendConfig, Runtime, TitleServingConfig
from recalign.errors import UserError
from recalign.report.stage_page import escape
from recalign.schemas import SERVING
from recalign.serving.output import check_output, write_output
from recalign.stored import title_prompt
from recalign.titles.prompts import is_packaged
from tasks.current_reasonings import current_reasonings
from tasks.engine.run import Run, Step
from tasks.engine.run_names import announce, start_of
from tasks.histories import histories
from tasks.serving import serving
from tasks.title_serving import title_serving

log = logging.getLogger(__name__)

STAGES = (histories, current_reasonings, serving, title_serving)
AnyChain = Chain | TitleChain
"""What recommends: of a DPO4Rec run or series, or of a RosePO run."""


def run_name(config: RecommendConfig) -> str:
    """What a flow run is called: whose recommendations, and for whom."""
    source = f"series {config.series}" if config.series else config.run or "newest run"
    whom = Path(config.users).name or "all users"
    return f"recommend by {source} for {whom}"


@flow(name="recommend", description=__doc__, validate_parameters=False)
def recommend(
    config: Annotated[RecommendConfig, titled(RecommendConfig.heading)] = RecommendConfig(),
    runtime: Annotated[Runtime, titled(Runtime.heading)] = Runtime(),
) -> Any:
    """Recommend items to every user, by the best round of a run or of a series.

    Args:
        config: For whom, from what, and where the table is written.
        runtime: Where and how to compute; changes nothing in the results.
    """
    config = settle(start_of(RecommendConfig(), "config"), config)
    run = Run(settle(start_of(Runtime(), "runtime"), runtime))
    announce(run_name(config), "recommend")
    with run.store.in_use():
        chain, _ = check(config, run)
        told = hand_over(run.store, config, stages(run, config, chain))
    show(told)
    return Completed(message=told)


def show(told: str) -> None:
    """The outcome on the run's page; ids and paths in it are text there, whatever they hold."""
    create_markdown_artifact(key="outcome", markdown=escape(told))


def check(config: RecommendConfig, run: Run) -> tuple[AnyChain, list[Step]]:
    """What recommends, and the plan; UserError for whatever is wrong before it starts."""
    check_output(config.output, config.given)
    chain = chosen(run.store, config)
    return chain, prepare(run, STAGES, lambda walk: stages(walk, config, chain))


def hand_over(store: Store, config: RecommendConfig, table: Reference) -> str:
    """Write the table where it is asked for; tells what is in it."""
    warn(store, config)
    made = store.open(table)
    return in_words(store, made.manifest, write_output(made.path(SERVING.file), config.output))


def warn(store: Store, config: RecommendConfig) -> None:
    """Say where what recommends is by its validation no better than before alignment."""
    if config.series:
        doubt = doubt_of_series(store, config.series)
    else:
        doubt = doubt_of_run(store, finished_run(store, config.run))
    if doubt:
        log.warning("%s", doubt)


def stages(run: Run, config: RecommendConfig, chain: AnyChain) -> Reference:
    """Histories up to now, what the policy writes about them, the best items; returns the table."""
    return served(run, config, chain, world_of(run, config, chain))


def world_of(run: Run, config: RecommendConfig, chain: AnyChain) -> Reference:
    """Everything that users did up to now: the run's interactions, newer ones laid over them."""
    known = chain.interactions
    if not config.interactions:
        return known
    source = run.store.manifest(known.stage, known.fingerprint)
    settings = InteractionsConfig.model_validate(source.config if source else {})
    newer = given_file("newer", config.interactions, "newer interactions")
    return run(histories, settings, {"interactions": known}, files=newer)


def served(run: Run, config: RecommendConfig, chain: AnyChain, world: Reference) -> Reference:
    """What the policy makes of these histories: a text that the recommender reads, or a ranking."""
    users = given_file("users", config.users, "users")
    if isinstance(chain, TitleChain):
        own = {name: getattr(config, name) for name in ("k", "exclude_seen", "candidates")}
        settings = TitleServingConfig(**own, **chain.judged)
        ranked_by = {"histories": world, "oracle": chain.oracle, "policy": chain.policy}
        files = own_questions(run, chain, config.template) | users
        return run(title_serving, settings, ranked_by, files=files)
    if config.candidates:
        raise UserError("candidates: a DPO4Rec run has no LLM that ranks items; leave it out")
    from recalign.recommending import template_path  # torch: seconds

    files = {"template": [template_path(chain, config.template)]} | users
    asked = {"histories": world, "policy": chain.policy}
    texts = run(current_reasonings, chain.asked, asked, files=files)
    read_by = {"oracle": chain.oracle, "recommender": chain.recommender}
    inputs = {"histories": world, "reasonings": texts} | read_by
    return run(serving, config.serving, inputs, files=users)


def own_questions(run: Run, chain: TitleChain, given: str) -> dict[str, list[Path]]:
    """The user's own template of a RosePO run's questions; none where a packaged one asks, or none.

    UserError where it is not found, or the one that is given is not the run's.
    """
    own = bool(chain.template_digest) and not is_packaged(chain.template_digest)
    if not (own or given):
        return {}
    asked = title_prompt(run.store.open(chain.policy), run.runtime.root, given)
    return {"template": [Path(asked.template)]} if own else {}


def chosen(store: Store, config: RecommendConfig) -> AnyChain:
    """What the run or series that the settings name recommends with; UserError without one."""
    if config.series:
        return chain_of_series(store, config.series).for_catalogue()
    report = finished_run(store, config.run)
    if report.stage == METHOD_REPORTS["rosepo"]:
        return title_chain_of_run(store, report)
    return chain_of_run(store, report).for_catalogue()


def given_file(role: str, name: str, what: str) -> dict[str, list[Path]]:
    """A file that the user names, under the role that a stage has for it; UserError if absent."""
    if name and not Path(name).is_file():
        raise UserError(f"{name}: there is no such file of {what}")
    return {role: [Path(name)]} if name else {}


def in_words(store: Store, made: Manifest, path: Path) -> str:
    """What was recommended to how many, why some have none, and what newer data brought."""
    figures = made.figures
    told = f"{figures['users_listed']} of {figures['users']} users have recommendations in {path}"
    without = [f"{n} ({reason})" for reason, n in made.dropped.items()]
    told += f"; without recommendations: {', '.join(without)}" if without else ""
    world = made.inputs["histories"]
    newer = store.manifest(world.stage, world.fingerprint) if world.stage == "histories" else None
    if newer:
        new, left_out = newer.figures, sum(newer.dropped.values())
        told += f"; of {new['newer_rows']} newer rows {new['newer_rows'] - left_out} are new"
        told += f", by {new['new_users']} new users" if new["new_users"] else ""
        if new["unknown_items"]:
            named = [ascii(one)[1:-1] if not one.isprintable() else one
                     for one in new["unknown_items_named"]]  # fmt: skip
            more = ", ..." if new["unknown_items"] > len(named) else ""
            told += f"; {new['unknown_items']} unknown items: {', '.join(named)}{more}"
    return told
