"""DPO4Rec (arXiv 2410.05939): align the LLM that writes preferences with the NDCG they earn."""

import logging
from dataclasses import dataclass, field

from flows.session import Wiring
from recalign.artifacts.manifest import Reference
from recalign.config import DPO4RecConfig, RoundsConfig
from recalign.errors import FailedRoundError
from recalign.recommender.required import why_refused
from recalign.splits.phases import PhaseName
from tasks.alignment import alignment, check_progress
from tasks.engine.run import Run
from tasks.evaluation import evaluation, unconfirmed, validation_score
from tasks.interactions import interactions, raw_files
from tasks.item_reasonings import item_reasonings
from tasks.oracle import oracle, oracle_files
from tasks.pairs import pairs
from tasks.policy import policy, policy_files
from tasks.reasonings import prompt_files, reasonings
from tasks.recommender import check_signal, recommender, recommender_files
from tasks.report import report
from tasks.rewards import rewards
from tasks.splits import splits

STAGES = (
    interactions, splits, oracle, policy, item_reasonings, reasonings, recommender, rewards, pairs,
    alignment, evaluation, report,
)  # fmt: skip

log = logging.getLogger(__name__)

BASE = "base"  # what a stage label calls the policy before any alignment


def stages(run: Run, config: DPO4RecConfig) -> Reference:
    """The method, stage by stage; returns the report."""
    rounds = begin(run, config)
    while not rounds.ended:
        rounds.advance()
    run.note = how_many(rounds.scores, config.rounds, rounds.refused)
    run.note += f"; {rounds.doubt}" if rounds.doubt else ""
    return rounds.judge()


WIRING = Wiring("dpo4rec", DPO4RecConfig, STAGES, stages, about=__doc__)
dpo4rec = WIRING.flow


def begin(run: Run, config: DPO4RecConfig) -> "Rounds":
    """Everything before the first round: data, oracle, policy 0, and the recommender it feeds."""
    raw = raw_files(config.interactions, run.runtime, download=not run.plan_only)
    data = run(interactions, config.interactions, files=raw)
    windows = run(splits, config.splits, {"interactions": data})
    world = {"interactions": data, "splits": windows}
    backbone = run(oracle, config.oracle, world, files=oracle_files(config.oracle))
    llm = config.first_policy
    first = run(policy, llm, world, files=policy_files(llm))
    rounds = Rounds(run, config, world, backbone, first, about_items(run, config, data, first))
    rounds.fit_base()
    return rounds


def about_items(
    run: Run, config: DPO4RecConfig, data: Reference, policy: Reference
) -> dict[str, Reference]:
    """What policy 0 writes about every item, where that is asked for."""
    asked = config.item_reasonings
    if not asked.write:
        return {}
    inputs, files = {"interactions": data, "policy": policy}, prompt_files(asked)
    return {"item_reasonings": run(item_reasonings, asked, inputs, files=files)}


@dataclass
class Rounds:
    """The stages that are repeated, over what a run computes once."""

    run: Run
    config: DPO4RecConfig
    world: dict[str, Reference]
    """Interactions and splits."""
    oracle: Reference
    policy: Reference
    about: dict[str, Reference] = field(default_factory=dict)
    """What is written about items, beside the reasonings an input of every recommender."""
    aligned: list[Reference] = field(default_factory=list)
    """The aligned policies, round 1 first."""
    scores: list[float | None] = field(default_factory=list)
    """Validation of the base policy and of every round; None while it is only planned."""
    doubt: str = ""
    """Why rewards may be noise although the recommender reads texts; told before any round."""
    refused: str = ""
    """Why the round after the last one may not be rewarded; empty: it may, or is not yet due."""
    story: dict[str, Reference] = field(default_factory=dict)
    """Pairs, rewards, alignments and validations by round, and who was refused, for the report."""

    def fit_base(self) -> None:
        """The recommender by which every round is judged, and what the base policy is worth."""
        self.base_fit = self.write("fit", None, BASE)
        self.frozen = self.fit(self.base_fit, BASE)
        if self.config.recommender.guard:
            check_signal(self.run, self.frozen)
        self.base_valid = self.write("valid", None, BASE)
        self.scores = [self.validate(self.base_valid, BASE)]
        self.doubt = unconfirmed(self.run, self.story["validation_0"])
        if self.doubt:
            log.warning("%s. Rounds may be wasted", self.doubt)

    @property
    def ended(self) -> str:
        """Why there is no further round; empty while there is one."""
        return why_ended(self.scores, self.config.rounds, self.refused)

    def advance(self) -> None:
        """One round, and what it is worth on validation; none where `refused` says why not.

        A later round than the first that fails by what the policy wrote or learned is no reason to
        lose those that are paid for: the best of them is judged.
        """
        number, story = len(self.aligned) + 1, dict(self.story)
        try:
            made = self.attempt(number)
        except FailedRoundError as error:
            if not self.aligned:
                raise
            made, self.story, self.refused = None, story, f"round {number} failed: {error}"
            log.warning("no further round: %s", self.refused)
        if made:
            self.aligned.append(made)
            texts = self.write("valid", made, round_name(number))
            self.scores.append(self.validate(texts, round_name(number)))

    def attempt(self, number: int) -> Reference | None:
        """The policy that this round makes; none where the guard refuses it."""
        if not self.aligned:
            return self.align(number, self.frozen, None)
        reader = self.refit(self.aligned)
        if self.refuses(number, reader):
            return None
        return self.align(number, reader, self.aligned[-1])

    def judge(self) -> Reference:
        """The best round against the base policy on the test window; returns the report."""
        best = best_round(self.scores)
        tests = {
            "base": self.write("test", None, BASE),
            "aligned": self.write("test", self.aligned[best - 1], round_name(best)),
        }
        read_by = {"recommender": self.frozen}
        try:
            read_by["refitted"] = self.refit(self.aligned[:best])
        except FailedRoundError as error:
            log.warning("no refitted recommender: %s", error)
        read_by |= self.independent() if self.config.evaluation.independent else {}
        judged = self.world | {"oracle": self.oracle}
        judging = self.config.evaluation.for_phase("test")
        results = self.run(evaluation, judging, judged | tests | read_by)
        told = {"policy": self.policy, "evaluation": results}
        page = self.config.report.ended_by(self.refused)
        return self.run(report, page, judged | tests | told | self.story)

    def write(
        self, phase: PhaseName, aligned: Reference | None, when: str, part: int = 1, parts: int = 1
    ) -> Reference:
        """What the policy, aligned or not, writes about the users before the phase's targets."""
        settings, label = self.config.reasonings, f"reasonings for {phase}, {when}"
        inputs, files = self.world | {"policy": aligned or self.policy}, prompt_files(settings)
        asked = settings.for_phase(phase, part, parts)
        return self.run(reasonings, asked, inputs, label=label, files=files)

    def fit(self, texts: Reference, when: str) -> Reference:
        """The recommender that reads these reasonings."""
        settings, label = self.config.recommender, f"recommender, {when}"
        inputs = self.world | {"oracle": self.oracle, "reasonings": texts} | self.about
        files = recommender_files(settings, self.config.splits)
        return self.run(recommender, settings, inputs, label=label, files=files)

    def refuses(self, number: int, reader: Reference) -> bool:
        """Whether the guard ends the rounds before this one; a plan may not know it yet.

        The base recommender's refusal is the run's failure. A later one is no reason to lose the
        rounds that are paid for: the best of them is judged.
        """
        known = self.config.recommender.guard and reader.digest
        made = self.run.told(reader) if known else None
        self.refused = why_refused(made.figures, number) if made else ""
        if self.refused:
            self.story["refused"] = reader
            if not self.run.plan_only:
                log.warning("no further round: %s", self.refused)
        return bool(self.refused)

    def refit(self, aligned: list[Reference]) -> Reference:
        """The recommender that reads what the last of these aligned policies writes."""
        when = round_name(len(aligned))
        return self.fit(self.write("fit", aligned[-1], when), when)

    def independent(self) -> dict[str, Reference]:
        """A recommender of another architecture that gave no reward, as a second opinion."""
        settings, label = self.config.oracle.independent(), "oracle, independent"
        files = oracle_files(settings)
        other = self.run(oracle, settings, self.world, label=label, files=files)
        reads = self.config.recommender.independent()
        inputs = self.world | {"oracle": other, "reasonings": self.base_fit} | self.about
        files, label = recommender_files(reads, self.config.splits), "recommender, independent"
        reader = self.run(recommender, reads, inputs, label=label, files=files)
        return {"independent_oracle": other, "independent": reader}

    def align(self, number: int, reader: Reference, previous: Reference | None) -> Reference:
        """One round; the policy that learned from one part of the users samples the next."""
        policy = previous or self.policy
        for part in range(1, self.config.rounds.inner_rounds + 1):
            policy = self.learn(number, part, reader, policy)
        return policy

    def learn(self, number: int, part: int, reader: Reference, start: Reference) -> Reference:
        """Sample, score each sample by the NDCG it earns, pair, prefer, from the policy `start`."""
        config, parts = self.config, self.config.rounds.inner_rounds
        whole, last = parts == 1, part == parts
        when = round_name(number) + ("" if last else f", part {part} of {parts}")
        by = round_name(number - 1) if whole else f"round {number}, part {part} of {parts}"
        samples = self.write("reward", start, by, part, parts)
        judge = self.world | {"oracle": self.oracle, "recommender": reader}
        written = {"reasonings": samples}
        scored = self.run(rewards, config.rewards, judge | written, label=f"rewards, {when}")
        rewarded = {"rewards": scored} | written
        paired = self.run(pairs, config.pairs, rewarded, label=f"pairs, {when}")
        earlier = {name: made for name, made in self.story.items() if name.startswith("pairs_")}
        inputs = earlier if config.rounds.pairs == "cumulative" else {}
        inputs |= {"start": start, "completions": paired}
        aligned = self.run(alignment, config.alignment, inputs, label=f"alignment, {when}")
        check_progress(self.run, aligned, config.alignment)
        made = {"rewards": scored, "pairs": paired, "alignment": aligned}
        place = f"{number}" if last else f"{number}_{part}"
        self.story |= {f"{name}_{place}": reference for name, reference in made.items()}
        return aligned

    def validate(self, texts: Reference, when: str) -> float | None:
        """The score by which rounds are compared; None while it is only planned."""
        settings, label = self.config.evaluation.for_phase("valid"), f"validation, {when}"
        judge = self.world | {"oracle": self.oracle, "recommender": self.frozen}
        inputs = judge | {"base": self.base_valid, "aligned": texts}
        validation = self.run(evaluation, settings, inputs, label=label)
        number = sum(name.startswith("validation_") for name in self.story)
        self.story[f"validation_{number}"] = validation
        return validation_score(self.run, validation)


def round_name(number: int) -> str:
    """What stage labels call the policy after this round."""
    return f"round {number}" if number else BASE


def has_converged(scores: list[float | None], patience: int) -> bool:
    """Whether the last `patience` rounds all failed to beat the best validation before them.

    Scores run from the base policy (round 0) on; None is a round that is only planned.
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores) or len(known) <= patience:
        return False
    return max(known[-patience:]) <= max(known[:-patience])


def why_ended(scores: list[float | None], rounds: RoundsConfig, refused: str = "") -> str:
    """Why no round follows these validation scores, in words; empty when one does."""
    number = len(scores) - 1
    if refused:
        return f"has ended after round {number}: {refused}"
    if has_converged(scores, rounds.patience):
        return f"has converged after round {number}"
    return f"has reached round {number}, the last by rounds.n" if number >= rounds.n else ""


def how_many(scores: list[float | None], rounds: RoundsConfig, refused: str = "") -> str:
    """How many rounds there were, and why not more."""
    number = len(scores) - 1
    few = "" if number >= rounds.n else f": {refused or 'validation did not rise'}"
    return f"{number} of {rounds.n} round{'s' * (rounds.n != 1)}{few}"


def best_round(scores: list[float | None]) -> int:
    """The round (from 1) with the best validation; while unknown, the last."""
    known = [score for score in scores[1:] if score is not None]
    if len(known) < len(scores) - 1:
        return len(scores) - 1
    return 1 + max(range(len(known)), key=known.__getitem__)
