"""What an artifact was made from, and what that cost."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recalign.artifacts.fingerprint import fingerprint
from recalign.artifacts.identity import flat
from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.store import Store


@dataclass(frozen=True)
class Cost:
    """What a set of artifacts took to compute, whichever run computed them."""

    cpu_seconds: float
    tokens: int
    """Written by the LLM in all reasonings."""
    pairs: int
    """Pairs of completions (or groups of them) aligned on, over all rounds; none held out."""


def lineage(store: Store, ends: Iterable[Manifest]) -> dict[str, Manifest]:
    """These artifacts and all that they were made from, by fingerprint, the oldest first."""
    found = {made.fingerprint: made for _, made in upwards(store, ends)}
    return dict(sorted(found.items(), key=lambda one: (one[1].created, one[0])))


def upwards(store: Store, ends: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """These artifacts and all that they were made from, each once, the nearest first.

    With each stands the shortest path of input names that leads to it; an end's own is its stage.
    What was deleted meanwhile is left out, and so is what it was made from.
    """
    queue, seen = deque((made.stage, made) for made in ends), set[str]()
    while queue:
        path, made = queue.popleft()
        if made.fingerprint in seen:
            continue
        seen.add(made.fingerprint)
        yield path, made
        for name, reference in sorted(made.inputs.items()):
            if above := store.manifest(reference.stage, reference.fingerprint):
                queue.append((f"{path}.{name}", above))


def aligned_on(figures: Mapping[str, Any]) -> tuple[int, int]:
    """Pairs (or groups, by the optimiser) that an alignment learned from, and those held out."""
    what = "pairs" if "pairs" in figures else "prompts"
    held_out = int(figures[f"held_out_{what}"])
    return int(figures[what]) - held_out, held_out


def cost_of(manifests: Mapping[str, Manifest]) -> Cost:
    """The sum of what the manifests tell."""
    written = [m.figures for m in manifests.values() if m.stage == "reasonings"]
    aligned = [m.figures for m in manifests.values() if m.stage == "alignment"]
    return Cost(
        cpu_seconds=sum(m.cpu_seconds for m in manifests.values()),
        tokens=round(sum(one["n"] * one["mean_tokens"] for one in written)),
        pairs=sum(aligned_on(one)[0] for one in aligned),
    )


def settings_of(manifests: Iterable[Manifest]) -> dict[str, str]:
    """What artifacts were made with, as stage.field: value; several values as "4/10"."""
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        for name, value in flat(manifest.config).items():
            found.setdefault(f"{manifest.stage}.{name}", set()).add(value)
    return {name: "/".join(sorted(values)) for name, values in sorted(found.items())}


def without_seeds(store: Store, end: Manifest, stages: Collection[str]) -> dict[str, str]:
    """What the inputs of `end` were made from and how, whatever the seeds of these stages.

    By their names, a digest each: equal ones differ in such seeds alone, all the way up. What was
    deleted meanwhile counts by its stage.
    """
    known: dict[str, str] = {}

    def told(reference: Reference) -> str:
        key = reference.fingerprint
        if key not in known:
            made = store.manifest(reference.stage, key)
            parts: dict[str, Any] = {"stage": reference.stage}
            if made:
                config = flat(made.config)
                if made.stage in stages:
                    config = {name: value for name, value in config.items()
                              if name.rpartition(".")[2] != "seed"}  # fmt: skip
                parts |= {"version": made.version, "config": config, "files": made.files}
                parts["inputs"] = {name: told(one) for name, one in made.inputs.items()}
            known[key] = fingerprint(parts)
        return known[key]

    return {name: told(reference) for name, reference in end.inputs.items()}
