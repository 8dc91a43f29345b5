"""One artifact's folder: complete and opened for reading, or still a draft."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recalign.artifacts.manifest import Manifest, Reference
from recalign.artifacts.provenance import cpu_seconds

WORK = "work"  # checkpoints and shards of a draft; never part of the artifact


@dataclass(frozen=True)
class Artifact:
    """A complete artifact, opened for reading."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """The path of one of the artifact's files or folders."""
        return self.folder / name

    @property
    def reference(self) -> Reference:
        return self.manifest.reference


@dataclass
class Draft:
    """A stage's output in the making; a killed run finds it again by fingerprint."""

    folder: Path
    manifest: Manifest
    _started: float = field(default_factory=time.monotonic)
    _started_cpu: float = field(default_factory=cpu_seconds)

    def path(self, name: str) -> Path:
        """Where the stage writes the output `name`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def work(self) -> Path:
        """Where the stage keeps checkpoints and shards; survives a kill, gone at commit."""
        path = self.folder / WORK
        path.mkdir(parents=True, exist_ok=True)
        return path

    def count(self, rows: int, dropped: dict[str, int] | None = None) -> None:
        """Tell how many rows the artifact holds and how many were left out, by reason."""
        self.manifest.rows = rows
        self.manifest.dropped = {k: int(v) for k, v in (dropped or {}).items() if v}

    def tell(self, figures: dict[str, Any]) -> None:
        """Add figures to the manifest."""
        self.manifest.figures |= figures
