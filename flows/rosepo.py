"""RosePO (arXiv 2410.12519): align the LLM that names the next item; a rejection may be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from flows.session import Wiring
from recalign.artifacts.digests import local_files
from recalign.artifacts.manifest import Reference
from recalign.config import ComparedRow, Loss, RosePOAlignmentConfig, RosePOConfig
from recalign.errors import UserError
from recalign.evaluation.next_items.claims import PERSONAL, questions
from tasks.alignment import alignment, check_progress
from tasks.comparison import comparison
from tasks.engine.run import Run
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
    """One strategy with its smoothing, beside the controls that are asked for."""
    rows = variants(config)
    if not questions(rows):
        raise UserError(
            f"recommendations.controls: nothing there is a control of {configured_row(config)!r};"
            " add another smoothing of its pairs, random, continued or continued_fresh"
        )
    return stages(run, config, rows)


def configured_row(config: RosePOConfig) -> str:
    """The label of the row that is aligned as the settings say."""
    strategy, optimiser = config.rejections.strategy, config.alignment.optimiser
    if optimiser != "pairs":
        return _row(strategy, optimiser).label
    return _aligned([(strategy, config.smoothing.estimator)], config.alignment)[0].label


WIRING = Wiring(
    "rosepo", RosePOConfig, STAGES, one_strategy, about=__doc__, headline=configured_row
)
rosepo = WIRING.flow


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
            case "continued" | "continued_fresh" | "aligned":
                return {"policy": self.align(row)}

    def align(self, row: ComparedRow) -> Reference:
        """Reject, smooth, prefer; continued fine-tuning sees only the chosen of such pairs."""
        if row.kind == "continued_fresh":
            pairs, chosen = f"fresh_{row.strategy}", self.fresh(row.strategy)
        else:
            pairs, chosen = row.strategy, self.reject(row.strategy)
        smoothed = self.smooth(row.estimator or "none", pairs, chosen)
        settings = self.config.alignment
        unread = ["drop_above"] if row.estimator in ("", "none") else []  # no eps to drop by
        if loss := row.loss if row.kind == "aligned" else "nll":
            settings = settings.model_copy(update={"optimiser": "pairs", "loss": loss})
        if loss == "nll":
            unread.append("beta")
        usual = {name: type(settings).model_fields[name].default for name in unread}
        settings = settings.model_copy(update=usual)  # a sweep over these trains such rows once
        inputs = {"start": self.sft, "completions": smoothed}
        if settings.optimiser == "pairs":  # the others score what they read themselves
            inputs["reference"] = self.score(pairs, chosen)
        aligned = self.run(alignment, settings, inputs, label=f"alignment, {row.label}")
        check_progress(self.run, aligned, settings)
        return aligned

    def score(self, pairs: str, chosen: Reference) -> Reference:
        """The SFT model's log-probabilities of pairs."""
        asked = self.world | {"sft": self.sft, "rejections": chosen}
        settings, label = self.config.alignment.for_reference(), f"reference, {pairs}"
        return self.run(reference, settings, asked, label=label)

    def reject(self, strategy: str) -> Reference:
        """Pairs of the item taken and items rejected for it."""
        return self._reject(strategy, strategy, {})

    def fresh(self, strategy: str) -> Reference:
        """As many chosen items as that strategy's pairs hold, but others."""
        return self._reject("random", f"fresh_{strategy}", {"matched": self.reject(strategy)})

    def _reject(self, strategy: str, pairs: str, matched: dict[str, Reference]) -> Reference:
        settings = self.config.rejections.model_copy(update={"strategy": strategy})
        inputs = self.world | ({"sft": self.sft} if settings.needs_sft else {}) | matched
        asked, label = settings.asked_as(self.config.sft.prompt), f"rejections, {pairs}"
        made = self.run(rejections, asked, inputs, label=label, files=rejection_files(asked))
        self.story[f"rejections_{pairs}"] = made
        return made

    def smooth(self, estimator: str, pairs: str, chosen: Reference) -> Reference:
        """How probably each rejected item is really the preferred one."""
        settings = self.config.smoothing.model_copy(update={"estimator": estimator})
        judge = {"oracle": self.judging_oracle()} if settings.needs_oracle else {}
        inputs = self.world | {"rejections": chosen} | judge
        made = self.run(smoothing, settings, inputs, label=f"smoothing, {pairs} {estimator}")
        self.story[f"smoothing_{pairs}_{estimator}"] = made
        return made

    def judging_oracle(self) -> Reference:
        """The oracle that scores pairs: none of them may hold an item it was fitted on."""
        settings = self.config.smoothing
        if settings.oracle == "earlier":
            return self.oracle
        inputs, files = self.world | {"oracle": self.oracle}, oracle_files(self.config.oracle)
        return self.run(fold_oracles, settings.folding, inputs, files=files)

    def judge(self, number: int, row: ComparedRow, judged: dict[str, Reference]) -> None:
        """Rank and answer for validation, if asked, and test; the test is what the table shows."""
        if self.config.recommendations.validated:
            self.story[f"valid_{number}"] = self._recommend("valid", row, judged)
        self.story[f"row_{number}"] = self._recommend("test", row, judged)

    def _recommend(
        self, phase: Literal["valid", "test"], row: ComparedRow, judged: dict[str, Reference]
    ) -> Reference:
        settings = self.config.judging
        label, files = f"{phase}, {row.label}", local_files("encoder", settings.encoder)
        return self.run(
            recommendations,
            settings.for_phase(phase),
            self.world | judged,
            label=f"recommendations for {label}",
            files=files,
        )


def variants(config: RosePOConfig) -> list[ComparedRow]:
    """The configured strategy with its smoothing, and the controls that are asked for."""
    strategy, estimator = config.rejections.strategy, config.smoothing.estimator
    optimiser, controls = config.alignment.optimiser, config.recommendations.controls
    unaligned = _baselines(config.oracle.name, controls) + _continued(strategy, controls)
    if optimiser != "pairs":  # the others read no smoothing
        return [*unaligned, _row(strategy, optimiser)]
    smoothed = ["none", estimator, "constant", "permuted"]
    smoothed += ["truth"] if config.interactions.source == "synthetic" else []
    pairs = [(strategy, one) for one in smoothed if one == estimator or one in controls]
    if "random" in controls:
        pairs.insert(0, ("random", "none"))
    rows = _aligned(pairs, config.alignment)
    if estimator not in PERSONAL and config.alignment.reads_eps:
        own = configured_row(config)
        rows = [row.model_copy(update={"configured": row.label == own}) for row in rows]
    return unaligned + rows


def _baselines(oracle: str, controls: Sequence[str]) -> list[ComparedRow]:
    """What ranks without any of the strategy's pairs; `oracle` is the sequence model's name."""
    rows = {
        "popularity": ComparedRow(label="Popularity", kind="popularity"),
        "oracle": ComparedRow(label=oracle, kind="sasrec"),
        "sft": ComparedRow(label="SFT", kind="sft"),
    }
    return [row for name, row in rows.items() if name in ("sft", *controls)]


def _continued(strategy: str, controls: Sequence[str]) -> list[ComparedRow]:
    """The controls of a strategy's rows: trained on without rejected items, for as many steps."""
    label = f"SFT continued, {strategy}"
    rows = [
        ComparedRow(label=f"{label} items", kind="continued", strategy=strategy),
        ComparedRow(label=f"{label}, fresh items", kind="continued_fresh", strategy=strategy),
    ]
    return [row for row in rows if row.kind in controls]


def _aligned(
    pairs: Sequence[tuple[str, str]], settings: RosePOAlignmentConfig
) -> list[ComparedRow]:
    """A row for each strategy and smoothing; where no eps is read, for each strategy."""
    if settings.reads_eps:
        return [_row(name, SMOOTHED[eps], eps) for name, eps in dict.fromkeys(pairs)]
    strategies = dict.fromkeys(name for name, _ in pairs)
    return [_row(one, settings.loss, loss=settings.loss) for one in strategies]


def _row(
    strategy: str, told: str, estimator: str = "none", loss: Loss | Literal[""] = ""
) -> ComparedRow:
    return ComparedRow(
        label=f"{strategy}, {told}",
        kind="aligned",
        strategy=strategy,
        estimator=estimator,
        loss=loss,
    )


SMOOTHED = {
    "none": "no eps", "pairwise": "eps", "softmax": "softmax eps", "constant": "constant eps",
    "permuted": "permuted eps", "truth": "true eps",
}  # fmt: skip
