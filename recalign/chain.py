"""A finished run, found by its report or its series, and what it recommends with."""

from dataclasses import dataclass
from typing import Any, Self

from recalign.artifacts.lookup import of_stages, resolve
from recalign.artifacts.manifest import Manifest, Reference, require_same
from recalign.artifacts.series import SERIES
from recalign.artifacts.store import Store
from recalign.config import InteractionsConfig, SamplingConfig, SyntheticWorld
from recalign.config.presets import changes
from recalign.errors import UserError
from recalign.metric_columns import SCORE
from recalign.templates import template_read

METHOD_REPORTS = {"dpo4rec": "report", "rosepo": "comparison"}
"""The stage that ends a run of each method."""


@dataclass(frozen=True)
class Chain:
    """What turns a user's history into recommendations, as DPO4Rec has left it."""

    interactions: Reference
    oracle: Reference
    policy: Reference
    """The aligned policy of the best round."""
    recommender: Reference
    """Refitted on what that policy writes, where the run or series has got that far."""
    asked: SamplingConfig
    """How the policy is asked."""
    template: str
    """File name of the prompt template, and below it its digest."""
    template_digest: str
    ranks: str = "catalogue"
    """What the recommender can rank; "lists" for PRM."""

    def for_catalogue(self) -> Self:
        """Itself; UserError, before anything is paid for, where only lists can be ranked."""
        if self.ranks != "catalogue":
            raise UserError(
                f"{self.recommender.name} is PRM, which re-ranks lists and cannot rank a whole "
                "catalogue: recommend by a run with recommender.kind = sasrec"
            )
        return self


@dataclass(frozen=True)
class TitleChain:
    """What turns a user's history into recommendations, as RosePO has left it."""

    interactions: Reference
    oracle: Reference
    policy: Reference
    """The best aligned row's LLM."""
    judged: dict[str, Any]
    """How its rankings were judged: likelihood, beam."""
    template_digest: str = ""
    """Of the template of its questions; empty where it continues a list of titles."""


def finished_run(store: Store, name: str = "", method: str = "") -> Manifest:
    """The report of this name, or the newest one of a method (empty: of any); else UserError."""
    wanted = [METHOD_REPORTS[method]] if method else list(METHOD_REPORTS.values())
    if name:
        found = resolve(store, name)
        if found.stage not in wanted:
            raise UserError(f"{found.reference.name} is no report of a finished run")
        return found
    reports = of_stages(store, wanted)
    if not reports:
        command = f"recalign run {method or 'dpo4rec'}"
        raise UserError(f"no finished run at {store.root} yet; `{command}` makes one")
    return reports[-1]


def data_set(store: Store, world: Reference) -> str:
    """Of interactions, or of histories laid over them, in words; empty where they are gone.

    A synthetic world of other settings has other users under the same ids, so they are told.
    """
    made = store.manifest(world.stage, world.fingerprint)
    if made is None:
        return ""
    if "interactions" in made.inputs:
        return data_set(store, made.inputs["interactions"])
    own = changes(SyntheticWorld(), InteractionsConfig.model_validate(made.config).synthetic)
    return ", ".join([name_of_data(made), *(f"{name} {value}" for name, value in own.items())])


def name_of_data(made: Manifest) -> str:
    """Of interactions; own files go by the name of the interactions file: no more is known."""
    settings = InteractionsConfig.model_validate(made.config)
    if settings.source == "files":
        return next(iter(made.files), "").partition("/")[2]
    return settings.name


def policy_of_run(store: Store, report: Manifest) -> Reference:
    """The aligned LLM that a run ends with: of the best round, or of the best aligned row."""
    if "aligned" in report.inputs:
        return _manifest(store, report.inputs["aligned"]).inputs["policy"]
    return _best_judged(store, report).inputs["policy"]


def best_row(comparison: Manifest) -> tuple[int, dict[str, Any]]:
    """The aligned row with the best validation: its number, and what it is."""
    rows, scores = comparison.config["rows"], _validations(comparison, "aligned")
    if not scores:
        raise UserError(
            f"{comparison.reference.name} judged its rows on test alone, and the best is chosen by"
            " validation: run it again with recommendations.validated = true; it judges that alone"
        )
    best = max(scores, key=scores.__getitem__)
    return next((number, row) for number, row in enumerate(rows) if row["label"] == best)


def _best_judged(store: Store, comparison: Manifest) -> Manifest:
    """The recommendations of that row."""
    number, _ = best_row(comparison)
    return _manifest(store, comparison.inputs[f"row_{number}"])


def _validations(comparison: Manifest, kind: str) -> dict[str, float]:
    """Of the rows of this kind, by label; empty where validation was not judged."""
    labels = [row["label"] for row in comparison.config["rows"] if row["kind"] == kind]
    scores = comparison.figures["validation"]
    return {label: scores[label] for label in labels if label in scores}


def doubt_of_run(store: Store, report: Manifest) -> str:
    """Why the aligned LLM of a run may be no better than before alignment, in a sentence.

    Empty where its validation is better, or cannot be told: which of the aligned is the best is
    chosen whether or not any of them beats what there was before.
    """
    if "aligned" not in report.inputs:
        (before,) = _validations(report, "sft").values() or [None]
        return _doubt(before, _validations(report, "aligned"))
    scores = {}
    for name, one in report.inputs.items():
        is_one = name.startswith("validation_")
        made = store.manifest(one.stage, one.fingerprint) if is_one else None
        if made:
            scores[f"round {name.removeprefix('validation_')}"] = float(made.figures[SCORE])
    return _doubt(scores.pop("round 0", None), scores)


def doubt_of_series(store: Store, name: str) -> str:
    """The same of the best round of a series."""
    latest = SERIES.read(store, name).latest
    scores = {f"round {one.number}": one.validation for one in latest.rounds} if latest else {}
    return _doubt(scores.pop("round 0", None), scores)


def _doubt(before: float | None, aligned: dict[str, float]) -> str:
    """By the validations of the LLM before, and of what was aligned."""
    best = max(aligned, key=aligned.__getitem__, default="")
    if before is None or not best or aligned[best] > before:
        return ""
    return (
        f"validation of {best}, {aligned[best]:.4f}, does not beat that before alignment, "
        f"{before:.4f}: alignment has not made this LLM better there"
    )


def title_chain_of_run(store: Store, comparison: Manifest) -> TitleChain:
    """What the RosePO run behind a comparison recommends with."""
    row, known = _best_judged(store, comparison), comparison.inputs
    judged = {name: row.config[name] for name in ("likelihood", "beam")}
    policy = row.inputs["policy"]
    first = _manifest(store, policy)
    while first.stage == "alignment":
        first = _manifest(store, first.inputs["start"])
    _, digest = template_read(first.files)
    return TitleChain(known["interactions"], known["oracle"], policy, judged, digest)


def chain_of_run(store: Store, report: Manifest) -> Chain:
    """What the run behind a report recommends with."""
    judged = _manifest(store, report.inputs["evaluation"])
    reader = judged.inputs.get("refitted") or judged.inputs["recommender"]
    return _chain(store, _manifest(store, report.inputs["aligned"]), reader)


def chain_of_series(store: Store, name: str) -> Chain:
    """What the best round of a series recommends with; UserError where no round is made yet."""
    series = SERIES.read(store, name)
    if series.latest is None or series.latest.best.alignment is None:
        raise UserError(
            f"there is no series {name}, or none of its rounds has been aligned yet; "
            "`recalign series` lists them"
        )
    made, best = series.latest.stages, f"round {series.latest.best.number}"
    reader = made.get(f"recommender, {best}") or made["recommender, base"]
    return _chain(store, _manifest(store, made[f"reasonings for valid, {best}"]), reader)


def _chain(store: Store, written: Manifest, recommender: Reference) -> Chain:
    """From the reasonings of the policy that is wanted, and the recommender that reads them."""
    settings = {n: v for n, v in written.config.items() if n in SamplingConfig.model_fields}
    template, digest = template_read(written.files)
    reader = _manifest(store, recommender)
    return Chain(
        interactions=written.inputs["interactions"],
        oracle=reader.inputs["oracle"],
        policy=written.inputs["policy"],
        recommender=reader.reference,
        asked=SamplingConfig.model_validate(settings),
        template=template,
        template_digest=digest,
        ranks="lists" if reader.config.get("kind") == "prm" else "catalogue",
    )


def _manifest(store: Store, reference: Reference) -> Manifest:
    """UserError where the artifact is gone, or was computed anew since."""
    found = store.manifest(reference.stage, reference.fingerprint)
    if found is None:
        raise UserError(f"{reference.name} is missing: run the method again to compute it anew")
    require_same(found, reference)
    return found
