"""What an artifact stands on, and in what two artifacts' whole lineages differ."""

from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store


def ancestry(store: Store, manifest: Manifest) -> dict[str, Manifest]:
    """The artifact and all it stands on, by the shortest path of input names that leads there.

    The path of the artifact itself is its stage. What was deleted meanwhile is left out, and so is
    what it stood on.
    """
    found, seen = {manifest.stage: manifest}, {manifest.fingerprint}
    queue = [(manifest.stage, manifest)]
    while queue:
        path, made = queue.pop(0)
        for name, reference in sorted(made.inputs.items()):
            above = store.manifest(reference.stage, reference.fingerprint)
            if above and above.fingerprint not in seen:
                seen.add(above.fingerprint)
                found[f"{path}.{name}"] = above
                queue.append((f"{path}.{name}", above))
    return found


def settings_between(old: dict[str, Manifest], new: dict[str, Manifest]) -> list[str]:
    """Settings, versions and files in which two lineages differ, each once, and who has more.

    Inputs are told of the artifact itself alone: above it their difference is a consequence.
    """
    lines: dict[str, None] = {}
    itself = next(iter(old))
    for path in [path for path in old if path in new]:
        before, now = old[path], new[path]
        if before.stage != now.stage:
            lines[f"{path}: {before.stage} -> {now.stage}"] = None
            continue
        for cause in before.identity.differences(now.identity):
            if path == itself or not cause.startswith("inputs."):
                lines[f"{now.stage}.{cause.removeprefix('config.')}"] = None
    return list(lines) + [f"only in the {which}: {path}" for which, path in _alone(old, new)]


def _alone(old: dict[str, Manifest], new: dict[str, Manifest]) -> list[tuple[str, str]]:
    """Inputs that only the first or the second has, without what they stand on themselves."""
    return [
        (which, path)
        for which, own, other in (("first", old, new), ("second", new, old))
        for path in own
        if path not in other and path.rpartition(".")[0] in other
    ]
