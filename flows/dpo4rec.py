"""DPO4Rec (arXiv 2410.05939): align the LLM that writes preferences with the NDCG they earn."""

from typing import Any

from prefect import flow
from prefect.states import Completed
from tasks.pairs import pairs
from tasks.recommender import recommender
from tasks.rewards import rewards

from flows.session import finish, prepare
from recalign.artifacts.manifest import Reference
from recalign.config import DPO4RecConfig, Runtime
from tasks.alignment import alignment
from tasks.evaluation import evaluation, validation_score
from tasks.interactions import interactions, raw_files
from tasks.oracle import oracle
from tasks.policy import policy, policy_files
from tasks.reasonings import prompt_files, reasonings
from tasks.report import report
from tasks.run import Run, StoppedAfter
from tasks.splits import splits

STAGES = [
    interactions, splits, oracle, policy, reasonings, recommender, rewards, pairs, alignment,
    evaluation, report,
]  # fmt: skip


@flow(name="dpo4rec", description=__doc__, validate_parameters=True)
def dpo4rec(
    config: DPO4RecConfig = DPO4RecConfig(),
    runtime: Runtime = Runtime(),
    force: list[str] = [],
    stop_after: str = "",
) -> Any:
    """Run DPO4Rec from raw interactions to an aligned policy and a report.

    Args:
        config: settings of every stage; what is unchanged since an earlier run is reused.
        runtime: where and how to compute; changes nothing in the results.
        force: stages to compute anew even when their artifacts exist.
        stop_after: last stage to run; empty: all.
    """
    run = Run(runtime, frozenset(force), stop_after)
    prepare(run, STAGES, lambda planned: stages(planned, config))
    try:
        return finish(run, stages(run, config))
    except StoppedAfter as stopped:
        return Completed(message=f"Stopped after {stopped}, as asked")


def stages(run: Run, config: DPO4RecConfig) -> Reference:
    """The method, stage by stage; returns the report."""
    data = run(interactions, config.interactions, files=raw_files(config.interactions, run.runtime))
    windows = run(splits, config.splits, interactions=data)
    backbone = run(oracle, config.oracle, interactions=data, splits=windows)
    world = {"interactions": data, "splits": windows}
    first = run(policy, config.policy, files=policy_files(config.policy), **world)

    def write(phase: Any, aligned: Reference | None, when: str) -> Reference:
        later = {"alignment": aligned} if aligned else {}
        return run(
            reasonings,
            config.reasonings.for_phase(phase),
            label=f"reasonings for {phase}, {when}",
            files=prompt_files(config.reasonings),
            policy=first,
            **later,
            **world,
        )

    def fit(texts: Reference, when: str) -> Reference:
        return run(
            recommender, config.recommender, label=f"recommender, {when}",
            oracle=backbone, reasonings=texts, **world,
        )  # fmt: skip

    def validate(texts: Reference, when: str) -> Reference:
        return run(
            evaluation, config.evaluation.for_phase("valid"), label=f"validation, {when}",
            oracle=backbone, recommender=frozen, base=base_valid, aligned=texts, **world,
        )  # fmt: skip

    frozen = fit(write("fit", None, "base"), "base")
    base_valid = write("valid", None, "base")
    validations, alignments, all_pairs, all_rewards = [validate(base_valid, "base")], [], [], []
    aligned, reader = None, frozen

    for number in range(1, config.rounds.n + 1):
        when, before = f"round {number}", f"round {number - 1}" if number > 1 else "base"
        if number > 1:
            reader = fit(write("fit", aligned, before), before)
        samples = write("reward", aligned, before)
        scored = run(
            rewards, config.rewards, label=f"rewards, {when}",
            oracle=backbone, recommender=reader, reasonings=samples, **world,
        )  # fmt: skip
        chosen = run(
            pairs, config.pairs, label=f"pairs, {when}", rewards=scored, reasonings=samples
        )
        all_pairs.append(chosen)
        all_rewards.append(scored)
        earlier = all_pairs[:-1] if config.rounds.pairs == "cumulative" else []
        inputs = {"policy": first, "pairs": chosen}
        inputs |= {f"pairs_{n}": table for n, table in enumerate(earlier, 1)}
        inputs |= {"previous": aligned} if aligned else {}
        aligned = run(alignment, config.alignment, label=f"alignment, {when}", **inputs)
        alignments.append(aligned)
        validations.append(validate(write("valid", aligned, when), when))
        scores = [validation_score(run, reference) for reference in validations]
        if has_converged(scores, config.rounds.patience):
            break

    best = best_round(scores)
    aligned = alignments[best - 1]
    when = f"round {best}"
    refitted = fit(write("fit", aligned, when), when)
    tests = {"base": write("test", None, "base"), "aligned": write("test", aligned, when)}
    results = run(
        evaluation, config.evaluation.for_phase("test"),
        oracle=backbone, recommender=frozen, refitted=refitted, **tests, **world,
    )  # fmt: skip
    story = {f"validation_{n}": reference for n, reference in enumerate(validations)}
    story |= {f"alignment_{n}": reference for n, reference in enumerate(alignments, 1)}
    story |= {f"pairs_{n}": reference for n, reference in enumerate(all_pairs, 1)}
    story |= {f"rewards_{n}": reference for n, reference in enumerate(all_rewards, 1)}
    return run(
        report, config.report, evaluation=results, oracle=backbone, policy=first,
        **tests, **story, **world,
    )  # fmt: skip


def has_converged(scores: list[float | None], patience: int) -> bool:
    """Whether the last `patience` rounds all failed to beat the best validation before them.

    Scores run from the base policy (round 0) on; None is a round that is only planned.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores) or len(known) <= patience:
        return False
    return max(known[-patience:]) <= max(known[:-patience])


def best_round(scores: list[float | None]) -> int:
    """The round (from 1) with the best validation; while unknown, the last."""
    rounds = scores[1:]
    if any(score is None for score in rounds):
        return len(rounds)
    return 1 + max(range(len(rounds)), key=lambda n: rounds[n] or 0.0)
