"""In what the whole lineages of two artifacts differ."""

from recalign.artifacts.manifest import Manifest


def settings_between(old: dict[str, Manifest], new: dict[str, Manifest]) -> list[str]:
    """Settings, versions and files in which two lineages differ, each once, and who has more.

    The lineages are as `upwards` tells them: by the path of inputs.

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
