"""What an artifact knows about itself."""

import hashlib
import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from recalign.artifacts.identity import Identity
from recalign.artifacts.names import FileName, FolderName
from recalign.errors import UserError


class Reference(BaseModel, frozen=True, extra="forbid"):
    """The small value that tasks pass on: which artifact, with which content."""

    stage: FolderName
    fingerprint: FolderName
    digest: str = ""  # of the content; empty: not computed yet

    @property
    def name(self) -> str:
        """The name users see: stage/first ten digits."""
        return f"{self.stage}/{self.fingerprint[:10]}"


class OutputFile(BaseModel):
    """One file of an artifact."""

    size: int
    sha256: str


class Manifest(BaseModel):
    """Identity, provenance, counts and files of an artifact; written last, so it means complete."""

    stage: FolderName
    version: int
    fingerprint: FolderName
    config: dict[str, Any]
    inputs: dict[str, Reference]
    files: dict[str, str] = {}  # sha256 of the raw files read, by role
    outputs: dict[FileName, OutputFile] = {}
    digest: str = ""  # sha256 over the outputs' digests
    told: str = ""  # sha256 over rows, dropped and figures; empty in manifests of earlier versions
    rows: int = 0
    dropped: dict[str, int] = {}  # rows left out, by reason
    figures: dict[str, Any] = {}  # numbers worth telling: losses, metrics, rates
    created: datetime
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    device: str = "cpu"
    peak_memory_mb: float = 0.0  # of the process
    peak_gpu_memory_mb: float = 0.0  # on one GPU; 0: none was used, or an earlier version
    git_commit: str = ""
    packages: dict[str, str] = {}

    @property
    def reference(self) -> Reference:
        return Reference(stage=self.stage, fingerprint=self.fingerprint, digest=self.digest)

    @property
    def content(self) -> str:
        """sha256 over the outputs' digests, as `digest` was when the artifact was written."""
        content = json.dumps({name: file.sha256 for name, file in self.outputs.items()})
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @property
    def telling(self) -> str:
        """sha256 over rows, dropped and figures as the file holds them, which stages read too."""
        text = self.model_dump_json(include={"rows", "dropped", "figures"})
        read_back = json.dumps(json.loads(text), sort_keys=True)
        return hashlib.sha256(read_back.encode()).hexdigest()[:32]

    @property
    def identity(self) -> Identity:
        """The part that the fingerprint is made of."""
        upstream = fingerprints(self.inputs)
        return Identity(self.stage, self.version, self.config, upstream, self.files)


def fingerprints(inputs: dict[str, Reference]) -> dict[str, str]:
    """The inputs' fingerprints, as an identity holds them."""
    return {name: reference.fingerprint for name, reference in inputs.items()}


def require_same(made: Manifest, reference: Reference) -> None:
    """UserError where an artifact has other content by now than when it was referred to.

    What was made from the old content would be used with the new: another base under an adapter.
    """
    if reference.digest not in ("", made.digest):
        raise UserError(
            f"{reference.name} was computed anew since, and is not what the rest was made from: "
            "run the method again to bring all of it up to date"
        )


def parse_manifest(text: bytes, stage: str, key: str) -> Manifest | None:
    """The manifest, or None when it is garbled, not one of this identity or names other folders."""
    try:
        found = Manifest.model_validate_json(text)
        identical = found.fingerprint == key == found.identity.fingerprint
    except (ValueError, TypeError, RecursionError):
        return None
    zoned = found.created.tzinfo is not None  # times of two kinds cannot be ordered
    return found if found.stage == stage and identical and zoned else None
