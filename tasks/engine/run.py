"""One walk through a flow's stages: computing them, or only telling what would be computed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from prefect.context import FlowRunContext
from prefect.utilities.annotations import quote

from recalign.artifacts.digests import file_digests
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.roots import open_root
from recalign.config import AlignmentConfig, Config, Runtime, SftConfig
from recalign.errors import UserError
from recalign.training.arguments import require_even_batches
from tasks.engine.cache import forget_record, is_current, renew_record
from tasks.engine.run_page import show_stage
from tasks.engine.stage import Call, Stage
from tasks.engine.trouble import trouble_explained

FORCED = "forced"
UNKNOWN = "unknown"  # fingerprint of what stands on files that are not here yet


class StoppedAfter(Exception):
    """Raised inside a flow once the stage that the user named is done."""


@dataclass(frozen=True)
class Step:
    """What happens to one stage of a run, and why."""

    label: str
    reference: Reference
    action: Literal["reuse", "compute", "depends", "unknown"]
    reason: str
    stops: bool = False
    """Whether a run ends here, because of what the artifact that it would reuse says."""


@dataclass
class Run:
    """Calls stages in order; flows are written against this one object.

    `force` names stages that are computed anew, `stop_after` the last one wanted, `plan_only`
    walks without computing: references are known by fingerprint before their content exists.
    """

    runtime: Runtime
    force: frozenset[str] = frozenset()
    stop_after: str = ""
    plan_only: bool = False
    steps: list[Step] = field(default_factory=list)
    note: str = ""
    """What the flow says of its end, beside the report."""

    def __post_init__(self) -> None:
        self.store = open_root(self.runtime.root)
        self._done: dict[str, Reference] = {}  # a flow may ask twice for the same artifact
        self._above: dict[Reference, set[Reference]] = {}  # all that each artifact stands on
        self._earlier: dict[str, list[Manifest]] = {}  # of each stage, as this walk met it first
        self._stood_for: dict[str, str] = {}  # new artifact: the earlier one that it was held to

    def __call__(
        self,
        stage: Stage,
        config: Config,
        inputs: dict[str, Reference] | None = None,
        *,
        label: str = "",
        files: dict[str, list[Path]] | None = None,
    ) -> Reference:
        """The artifact of `stage` for this config, these inputs and raw files, reused or computed.

        `label` tells apart the runs of a stage that a flow calls several times, here and in the
        report. An artifact that this walk has already is neither a step nor a task again.
        """
        inputs = inputs or {}
        files = files or {}
        with trouble_explained(stage.name, self.store.root):
            if isinstance(config, AlignmentConfig | SftConfig):  # told by the plan already
                require_even_batches(config, self.runtime.devices, stage.name)
            identity = stage.identity(config, inputs, file_digests(files, self._digest))
            key, unclear = identity.fingerprint, UNKNOWN in identity.inputs.values()
            if key in self._done and not unclear:  # of two unclear ones the contents may differ
                return self._ended(self._done[key], stage, label)
            step = self._step(identity, inputs, label or stage.name)
            recorded = True
            if step.action == "reuse" and not self.plan_only:
                recorded = renew_record(self.store, step.reference)
            elif not self.plan_only:
                forget_record(self.store, stage.name, key)
        self.steps.append(step)
        reference = step.reference
        if not self.plan_only and recorded:
            forced = step.reason == FORCED
            task = stage.task.with_options(
                task_run_name=step.label.replace("{", "{{").replace("}", "}}"),  # it is formatted
                result_storage=self.store.root.resolve(),
                refresh_cache=forced,
            )
            above = self._above_all(inputs)
            labels = {one.reference.fingerprint: one.label for one in self.steps}
            # Prefect draws an edge to what returned any object in here that is not quoted, texts
            # too: a stage's name as key of the inputs is the very text in the reference that this
            # stage returned. The task itself gets all without the quotes.
            hidden: list[Any] = [quote(o) for o in (identity, config, inputs, files, labels)]
            # The ten edges of a late stage would hide where it comes from: one to an input that
            # another stands on is left out.
            links = [one for one in inputs.values() if one not in above]
            who, how, made_from, read, named = hidden
            reference = task(Call(who, how, made_from, read, self.runtime, forced, named, links))
            self._above[reference] = above.union(inputs.values())
            show_stage(step.label, self.store, reference, stage.sections)
        self._done[key] = reference
        return self._ended(reference, stage, label)

    def _ended(self, reference: Reference, stage: Stage, label: str) -> Reference:
        """The reference; StoppedAfter where the user wants no more."""
        if self.stop_after in (stage.name, label or stage.name):
            raise StoppedAfter(label or stage.name)
        return reference

    def _above_all(self, inputs: dict[str, Reference]) -> set[Reference]:
        """All that these artifacts stand on."""
        nothing: set[Reference] = set()
        return nothing.union(*(self._above.get(one, nothing) for one in inputs.values()))

    def _digest(self, path: Path) -> str:
        """sha256; in a plan, that of a file that is not downloaded yet is unknown."""
        missing = self.plan_only and not path.exists()
        return UNKNOWN if missing else self.store.digests.digest(path)

    def told(self, reference: Reference) -> Manifest | None:
        """What an artifact says of itself, or None while it is only planned; nothing is fetched."""
        if self.plan_only:
            return self.store.known(reference.stage, reference.fingerprint)
        return self.store.told(reference)

    def require(self, made: Reference, check: Callable[[dict[str, Any]], None]) -> None:
        """Let `check` raise UserError for figures with which a run must not go on.

        A plan goes on: the step tells it, as far as the content is known.
        """
        if not self.plan_only:
            check(self.store.told(made).figures)
        elif made.digest and (known := self.told(made)):
            try:
                check(known.figures)
            except UserError:
                self.steps = [
                    replace(step, stops=True) if step.reference == made else step
                    for step in self.steps
                ]

    def _step(self, identity: Identity, inputs: dict[str, Reference], label: str) -> Step:
        stage, key = identity.stage, identity.fingerprint
        planned = Reference(stage=stage, fingerprint=key)
        if self._is_forced(stage, key, label):
            return Step(label, planned, "compute", FORCED)
        if why := _why_unknown(identity):
            planned = Reference(stage=stage, fingerprint=UNKNOWN)
            return Step(label, planned, "unknown", why)
        found = self.store.known(stage, key)
        unknown = [name for name, reference in inputs.items() if not reference.digest]
        if found and not unknown:
            if is_current(found, inputs):
                return Step(label, found.reference, "reuse", "")
            return Step(label, planned, "compute", "an input's content changed")
        if found:
            end = "equals" if len(unknown) == 1 else "equal"
            reason = f"not needed if the new {' and '.join(unknown)} {end} the old"
            return Step(label, planned, "depends", reason)
        if self.store.folder(stage, key).exists():
            return Step(label, planned, "compute", "its files are missing or damaged")
        return Step(label, planned, "compute", self._why_new(identity))

    def _is_forced(self, stage: str, key: str, label: str) -> bool:
        """Whether to compute it anew; not what this flow run did before it was killed."""
        if self.force.isdisjoint((stage, label)):
            return False
        since = first_start()
        found = self.store.known(stage, key) if since else None
        return not (since and found and found.created >= since)

    def _why_new(self, identity: Identity) -> str:
        """The fields in which the nearest earlier artifact of this stage differs.

        One made from inputs of the same names comes first, then one that was made from what the
        new inputs were compared with themselves; of equally near ones the newest.
        """
        if identity.stage not in self._earlier:
            self._earlier[identity.stage] = list(self.store.manifests(identity.stage))
        if not self._earlier[identity.stage]:
            return "never computed"
        stood_for = {name: self._stood_for.get(key, key) for name, key in identity.inputs.items()}
        before = replace(identity, inputs=stood_for)

        def distance(made: Manifest) -> tuple[bool, int]:
            unlike = made.inputs.keys() != identity.inputs.keys()
            return unlike, len(made.identity.differences(before))

        nearest = min(reversed(self._earlier[identity.stage]), key=distance)
        self._stood_for[identity.fingerprint] = nearest.fingerprint
        differences = nearest.identity.differences(identity)
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        return "; ".join(differences[:3]) + more


def first_start() -> datetime | None:
    """When this flow run began for the first time: what a killed attempt made is new, too.

    Prefect keeps the time over retries. Outside a flow run, and in a first attempt, there is none:
    it is the server's, by which an artifact of another clock may seem to be made in this run.
    """
    context = FlowRunContext.get()
    this = context.flow_run if context else None
    return this.start_time if this and this.run_count > 1 else None


def _why_unknown(identity: Identity) -> str:
    """What has to be there before anyone can tell whether a stage is computed; empty: nothing."""
    missing = [
        role.rpartition("/")[2] for role, digest in identity.files.items() if digest == UNKNOWN
    ]
    if missing:
        return f"{' and '.join(missing)} would be downloaded first"
    unclear = [name for name, upstream in identity.inputs.items() if upstream == UNKNOWN]
    return f"known once {unclear[0]} is" if unclear else ""


def check_stage_names(names: list[str], known: list[str], option: str) -> None:
    """UserError for a stage name that the flow does not have."""
    for name in names:
        if name and name not in known:
            shown = [repr(one) if "," in one else one for one in known]
            raise UserError(f"{option}: no stage {name!r}; there are {', '.join(shown)}")
