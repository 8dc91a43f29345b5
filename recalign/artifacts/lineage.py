"""What an artifact was made from, and what that cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recalign.artifacts.identity import flat
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store


@dataclass(frozen=True)
class Cost:
    """What a set of artifacts took to compute, whichever run computed them."""

    cpu_seconds: float
    tokens: int
    """Written by the LLM in all reasonings."""
    pairs: int
    """Pairs of completions (or groups of them) aligned on, over all rounds."""


def lineage(store: Store, ends: Iterable[Manifest]) -> dict[str, Manifest]:
    """These artifacts and all that they were made from, by fingerprint, the oldest first."""
    found: dict[str, Manifest] = {}
    queue = list(ends)
    while queue:
        manifest = queue.pop()
        if manifest.fingerprint not in found:
            found[manifest.fingerprint] = manifest
            above = (store.manifest(r.stage, r.fingerprint) for r in manifest.inputs.values())
            queue += [one for one in above if one]
    return dict(sorted(found.items(), key=lambda one: (one[1].created, one[0])))


def cost_of(manifests: Mapping[str, Manifest]) -> Cost:
    """The sum of what the manifests tell."""
    written = [m.figures for m in manifests.values() if m.stage == "reasonings"]
    return Cost(
        cpu_seconds=sum(m.cpu_seconds for m in manifests.values()),
        tokens=round(sum(one["n"] * one["mean_tokens"] for one in written)),
        pairs=sum(m.rows for m in manifests.values() if m.stage == "alignment"),
    )


def settings_of(manifests: Iterable[Manifest]) -> dict[str, str]:
    """What artifacts were made with, as stage.field: value; several values as "4/10"."""
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        for name, value in flat(manifest.config).items():
            found.setdefault(f"{manifest.stage}.{name}", set()).add(value)
    return {name: "/".join(sorted(values)) for name, values in sorted(found.items())}
