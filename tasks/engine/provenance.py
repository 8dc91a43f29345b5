"""What the inputs of a stage have to agree on: one table, checked manifest against manifest.

Every artifact that a stage stands on comes from the same interactions and splits. What further has
to fit is in RULES, by stage, as paths of input names: "rewards.reasonings" is the reasonings that
the input `rewards` was made from. `*` stands for any ending, the same in both paths of a rule. What
a path does not find (an optional input, another method's stage) is not compared. Nothing of this
is part of an identity.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.roots import open_root
from recalign.errors import UserError

WORLD = ("interactions", "splits")
ACROSS = ("drift",)  # stages that may compare two worlds: by ids, not by indices


@dataclass(frozen=True)
class Same:
    """Two paths that have to lead to the same artifact."""

    first: str
    second: str


@dataclass(frozen=True)
class OfPhase:
    """A path that has to lead to an artifact of this phase; empty: of the stage's own."""

    path: str
    phase: str = ""


RULES: dict[str, tuple[Same | OfPhase, ...]] = {
    "recommender": (OfPhase("reasonings", "fit"),),
    "rewards": (OfPhase("reasonings", "reward"), Same("oracle", "recommender.oracle")),
    "pairs": (Same("reasonings", "rewards.reasonings"),),
    "reference": (Same("sft", "rejections.sft"),),
    "alignment": (
        Same("start", "completions.reasonings.policy"),
        Same("start", "completions.rejections.sft"),
        Same("start", "reference.sft"),
        Same("completions.rejections", "reference.rejections"),
    ),
    "evaluation": (
        OfPhase("base"),
        OfPhase("aligned"),
        Same("oracle", "recommender.oracle"),
        Same("oracle", "refitted.oracle"),
        Same("independent_oracle", "independent.oracle"),
    ),
    "report": (
        OfPhase("evaluation", "test"),
        OfPhase("validation_*", "valid"),
        Same("base", "evaluation.base"),
        Same("aligned", "evaluation.aligned"),
        Same("oracle", "evaluation.oracle"),
    ),
    "serving": (
        Same("oracle", "recommender.oracle"),
        Same("histories", "reasonings.histories"),
    ),
    "comparison": (
        OfPhase("row_*", "test"),
        OfPhase("valid_*", "valid"),
        Same("row_*.policy", "valid_*.policy"),
        Same("row_*.oracle", "valid_*.oracle"),
        Same("oracle", "row_*.oracle"),
        Same("sft", "row_*.policy.start"),
    ),
}

Read = Callable[[Reference], Manifest | None]
Found = tuple[str, Reference]
"""A path, its * filled in, and the artifact at its end."""


def check_provenance(root: str, identity: Identity, inputs: Mapping[str, Reference]) -> None:
    """UserError naming two artifacts among the inputs, or under them, that do not fit together.

    An artifact whose folder is gone is not compared.
    """

    def read(reference: Reference) -> Manifest | None:
        try:
            return _manifest(root, reference.stage, reference.fingerprint)
        except FileNotFoundError:
            return None

    if identity.stage not in ACROSS:
        _check_world(identity.stage, inputs, read)
    for rule in RULES.get(identity.stage, ()):
        match rule:
            case OfPhase():
                wanted = rule.phase or str(identity.config["phase"])
                _check_phase(identity.stage, _ends(rule.path, inputs, read), wanted, read)
            case Same():
                _check_same(identity.stage, compared(rule, inputs, read))


def _check_phase(stage: str, ends: dict[str, Found], wanted: str, read: Read) -> None:
    for path, found in ends.values():
        made = read(found)
        if made and made.config["phase"] != wanted:
            raise UserError(
                f"{stage}: {path} is {found.name}, of phase {made.config['phase']} instead of "
                f"{wanted}"
            )


def _check_same(stage: str, pairs: Iterable[tuple[Found, Found]]) -> None:
    for (path, found), (other, expected) in pairs:
        if found.fingerprint != expected.fingerprint:
            raise UserError(f"{stage}: {path} is {found.name}, but {other} is {expected.name}")


def compared(
    rule: Same, inputs: Mapping[str, Reference], read: Read
) -> Iterator[tuple[Found, Found]]:
    """The pairs of artifacts that a rule compares here."""
    firsts, seconds = (_ends(path, inputs, read) for path in (rule.first, rule.second))
    for star, second in seconds.items():
        first = firsts.get(star) or firsts.get("")
        if first:
            yield first, second


def _ends(path: str, inputs: Mapping[str, Reference], read: Read) -> dict[str, Found]:
    """The artifacts at the end of a path, by what * stands for; "" in a path without it."""
    head, *steps = path.split(".")
    prefix, starred, _ = head.partition("*")
    ends: dict[str, Found] = {}
    for name, reference in inputs.items():
        fits = name.startswith(prefix) if starred else name == head
        found = _follow(reference, steps, read) if fits else None
        if found:
            ends[name.removeprefix(prefix) if starred else ""] = ".".join([name, *steps]), found
    return ends


def _follow(reference: Reference, steps: list[str], read: Read) -> Reference | None:
    for step in steps:
        made = read(reference)
        if made is None or step not in made.inputs:
            return None
        reference = made.inputs[step]
    return reference


def _check_world(stage: str, inputs: Mapping[str, Reference], read: Read) -> None:
    """One artifact each of WORLD under all the inputs."""
    first: dict[str, Found] = {}
    queue, seen = list(inputs.items()), set[Reference]()
    while queue:
        path, reference = queue.pop(0)
        if reference.stage in WORLD:
            known = first.setdefault(reference.stage, (path, reference))
            if known[1].fingerprint != reference.fingerprint:
                raise UserError(
                    f"{stage}: {known[0]} is {known[1].name}, but {path} is {reference.name}: "
                    f"all inputs have to come from the same {reference.stage}"
                )
        made = None if reference in seen else read(reference)
        seen.add(reference)
        if made:
            queue += [(f"{path}.{name}", above) for name, above in made.inputs.items()]


@lru_cache(maxsize=4096)
def _manifest(root: str, stage: str, fingerprint: str) -> Manifest:
    """A fingerprint is made of settings and inputs: what is compared here cannot change."""
    found = open_root(root).manifest(stage, fingerprint)
    if found is None:
        raise FileNotFoundError(f"{stage}/{fingerprint}")
    return found
