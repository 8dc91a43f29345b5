"""Artifacts by the names that people use for them, at roots that are there."""

from collections.abc import Iterable
from pathlib import Path

from recalign.artifacts.manifest import Manifest
from recalign.artifacts.roots import is_url, open_root
from recalign.artifacts.store import Store
from recalign.errors import UserError


def open_existing(root: str) -> Store:
    """The store at `root`, which must exist: what only looks never creates one."""
    if not is_url(root) and not Path(root).is_dir():
        raise UserError(f"no artifacts at {root}; run something, or name the folder with --root")
    return open_root(root)


def of_stages(store: Store, stages: Iterable[str]) -> list[Manifest]:
    """Manifests of these stages, oldest first; a URL is asked for no others."""
    found = [made for stage in stages for made in store.manifests(stage)]
    return sorted(found, key=lambda made: (made.created, made.fingerprint))


def resolve(store: Store, name: str) -> Manifest:
    """The one artifact that `stage/digits`, or digits alone, stands for."""
    stage, _, digits = name.rpartition("/")
    if not digits:
        raise UserError("name an artifact by its stage/fingerprint or first digits, as in `ls`")
    found = [m for m in store.manifests(stage or None) if m.fingerprint.startswith(digits)]
    if not found:
        raise UserError(f"no artifact {name!r}; `recalign ls` lists them")
    if len(found) > 1:
        names = ", ".join(m.reference.name for m in found)
        raise UserError(f"{name!r} could be any of {names}")
    return found[0]
