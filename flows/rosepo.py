"""RosePO (arXiv 2410.12519): align the LLM that names the next item; a rejection may be wrong."""

from dataclasses import dataclass, field
from typing import Literal

from flows.session import Wiring
from recalign.artifacts.manifest import Reference
from recalign.config import ComparedRow, RosePOConfig
from tasks.alignment import alignment
from tasks.comparison import comparison
from tasks.engine.run import Run
from tasks.engine.stage import local_files
from tasks.fold_oracles import fold_oracles
from tasks.interactions import interactions, raw_files
from tasks.oracle import oracle, oracle_files
from tasks.recommendations import recommendations
from tasks.reference import reference
from tasks.rejections import rejection_files, rejections
from tasks.sft import sft, sft_files
from tasks.smoothing import smoothing
from tasks.splits import splits

STAGES = (
    interactions, splits, oracle, sft, rejections, fold_oracles, smoothing, reference, alignment,
    recommendations, comparison,
)  # fmt: skip


def one_strategy(run: Run, config: RosePOConfig) -> Reference:
    """One strategy with its smoothing, beside all its controls."""
    return stages(run, config, variants(config))


def whole_grid(run: Run, config: RosePOConfig) -> Reference:
    """Every strategy and smoothing of `config.grid`; what rows share is computed once."""
    return stages(run, config, grid_variants(config))


ONE = Wiring("rosepo", RosePOConfig, STAGES, one_strategy, about=__doc__)
GRID = Wiring("rosepo-grid", RosePOConfig, STAGES, whole_grid, about=whole_grid.__doc__)
rosepo = ONE.flow
rosepo_grid = GRID.flow


def stages(run: Run, config: RosePOConfig, rows: list[ComparedRow]) -> Reference:
    """The method, stage by stage, for all rows of the comparison; returns the comparison."""
    raw = raw_files(config.interactions, run.runtime, download=not run.plan_only)
    data = run(interactions, config.interactions, files=raw)
    windows = run(splits, config.splits, {"interactions": data})
    world = {"interactions": data, "splits": windows}
    backbone = run(oracle, config.oracle, world, files=oracle_files(config.oracle))
    tuned = run(sft, config.sft, world, files=sft_files(config.sft))
    contest = Contest(run, config, world, backbone, tuned)
    for number, row in enumerate(rows):
        contest.judge(number, row, contest.judged(row))
    known = world | {"oracle": backbone, "sft": tuned} | contest.story
    return run(comparison, config.recommendations.compare(rows), known)


@dataclass
class Contest:
    """The stages that every row repeats, over what a run computes once."""

    run: Run
    config: RosePOConfig
    world: dict[str, Reference]
    """Interactions and splits."""
    oracle: Reference
    sft: Reference
    story: dict[str, Reference] = field(default_factory=dict)
    """Rejections, smoothings, alignments and judgements, for the comparison."""

    def judged(self, row: ComparedRow) -> dict[str, Reference]:
        """Who ranks for this row."""
        match row.kind:
            case "popularity":
                return {}
            case "sasrec":
                return {"oracle": self.oracle}
            case "sft":
                return {"policy": self.sft}
            case "continued" | "aligned":
                return {"policy": self.align(row)}

    def align(self, row: ComparedRow) -> Reference:
        """Reject, smooth, prefer. Continued fine-tuning sees only the chosen of the same pairs."""
        continued = row.kind == "continued"
        strategy = "random" if continued else row.strategy
        chosen = self.reject(strategy)
        smoothed = self.smooth("none" if continued else row.estimator, strategy, chosen)
        settings = self.config.alignment
        if continued:
            settings = settings.model_copy(update={"optimiser": "pairs", "loss": "nll"})
        inputs = {"start": self.sft, "completions": smoothed}
        if settings.optimiser == "pairs":  # the others score what they read themselves
            inputs["reference"] = self.score(strategy, chosen)
        return self.run(alignment, settings, inputs, label=f"alignment, {row.label}")

    def score(self, strategy: str, chosen: Reference) -> Reference:
        """The SFT model's log-probabilities of a strategy's pairs."""
        asked = self.world | {"sft": self.sft, "rejections": chosen}
        settings, label = self.config.alignment.for_reference(), f"reference, {strategy}"
        return self.run(reference, settings, asked, label=label)

    def reject(self, strategy: str) -> Reference:
        """Pairs of the item taken and items rejected for it."""
        settings = self.config.rejections.model_copy(update={"strategy": strategy})
        inputs = self.world | ({"sft": self.sft} if settings.needs_sft else {})
        asked, label = settings.asked_as(self.config.sft.prompt), f"rejections, {strategy}"
        made = self.run(rejections, asked, inputs, label=label, files=rejection_files(asked))
        self.story[f"rejections_{strategy}"] = made
        return made

    def smooth(self, estimator: str, strategy: str, chosen: Reference) -> Reference:
        """How probably each rejected item is really the preferred one."""
        settings = self.config.smoothing.model_copy(update={"estimator": estimator})
        judge = {"oracle": self.judging_oracle()} if settings.needs_oracle else {}
        inputs = self.world | {"rejections": chosen} | judge
        made = self.run(smoothing, settings, inputs, label=f"smoothing, {strategy} {estimator}")
        self.story[f"smoothing_{strategy}_{estimator}"] = made
        return made

    def judging_oracle(self) -> Reference:
        """The oracle that scores pairs: none of them may hold an item it was fitted on."""
        settings = self.config.smoothing
        if settings.oracle == "earlier":
            return self.oracle
        inputs, files = self.world | {"oracle": self.oracle}, oracle_files(self.config.oracle)
        return self.run(fold_oracles, settings.folding, inputs, files=files)

    def judge(self, number: int, row: ComparedRow, judged: dict[str, Reference]) -> None:
        """Rank and answer for validation and test; the test is what the table shows."""
        self.story[f"valid_{number}"] = self._recommend("valid", row, judged)
        self.story[f"row_{number}"] = self._recommend("test", row, judged)

    def _recommend(
        self, phase: Literal["valid", "test"], row: ComparedRow, judged: dict[str, Reference]
    ) -> Reference:
        settings = self.config.recommendations
        label, files = f"{phase}, {row.label}", local_files("encoder", settings.encoder)
        return self.run(
            recommendations,
            settings.for_phase(phase),
            self.world | judged,
            label=f"recommendations for {label}",
            files=files,
        )


def variants(config: RosePOConfig) -> list[ComparedRow]:
    """The configured strategy with its smoothing, and what it has to be compared with."""
    strategy, estimator = config.rejections.strategy, config.smoothing.estimator
    controls = ["none", estimator, "permuted"]
    controls += ["truth"] if config.interactions.source == "synthetic" else []
    pairs = [("random", "none")] + [(strategy, one) for one in controls]
    return BASELINES + [_aligned(*pair) for pair in dict.fromkeys(pairs)]


def grid_variants(config: RosePOConfig) -> list[ComparedRow]:
    """Every strategy of the grid with every smoothing."""
    known = config.interactions.source == "synthetic"
    smoothings = [one for one in config.grid.estimators if known or one != "truth"]
    strategies = config.grid.strategies
    return BASELINES + [_aligned(one, other) for one in strategies for other in smoothings]


def _aligned(strategy: str, estimator: str) -> ComparedRow:
    label = f"{strategy}, {SMOOTHED[estimator]}"
    return ComparedRow(label=label, kind="aligned", strategy=strategy, estimator=estimator)


BASELINES = [
    ComparedRow(label="Popularity", kind="popularity"),
    ComparedRow(label="SASRec", kind="sasrec"),
    ComparedRow(label="SFT", kind="sft"),
    ComparedRow(label="SFT continued", kind="continued"),
]
SMOOTHED = {
    "none": "no eps", "pairwise": "eps", "softmax": "softmax eps", "constant": "constant eps",
    "permuted": "permuted eps", "truth": "true eps",
}  # fmt: skip
