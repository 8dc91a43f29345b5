"""What an artifact knows about itself."""

import hashlib
import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from recalign.artifacts.fingerprint import canonical, fingerprint


class Reference(BaseModel):
    """The small value that tasks pass on: which artifact, with which content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    fingerprint: str
    digest: str = ""
    """Digest of the content; empty: not computed yet."""

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

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, Reference]
    files: dict[str, str] = {}
    """sha256 of the raw files read, by role."""
    outputs: dict[str, OutputFile] = {}
    digest: str = ""
    """sha256 over the outputs' digests."""
    rows: int = 0
    dropped: dict[str, int] = {}
    """Rows left out, by reason."""
    figures: dict[str, Any] = {}
    """Numbers worth telling: losses, metrics, rates."""
    created: datetime
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    device: str = "cpu"
    peak_memory_mb: float = 0.0
    git_commit: str = ""
    packages: dict[str, str] = {}

    @property
    def reference(self) -> Reference:
        return Reference(stage=self.stage, fingerprint=self.fingerprint, digest=self.digest)


def differences(old: Manifest | dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The fields in which two identities differ, as "config.beta: 0.1 -> 0.05".

    `new` has the keys version, config, inputs (name -> fingerprint) and files. What only one of
    them has comes last.
    """
    before = identity_of(old) if isinstance(old, Manifest) else old
    flat_before, flat_after = _flat(before), _flat(new)
    found = []
    both = flat_before.keys() & flat_after.keys()
    for key in sorted(both) + sorted(flat_before.keys() ^ flat_after.keys()):
        first, second = flat_before.get(key, "-"), flat_after.get(key, "-")
        if first != second:
            short = [
                str(v)[:10] if key.startswith(("inputs", "files")) else v for v in (first, second)
            ]
            found.append(f"{key}: {short[0]} -> {short[1]}")
    return found


def identity_of(manifest: Manifest) -> dict[str, Any]:
    """The part of a manifest that its fingerprint is made of."""
    return {
        "version": manifest.version,
        "config": manifest.config,
        "inputs": {name: reference.fingerprint for name, reference in manifest.inputs.items()},
        "files": manifest.files,
    }


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value if isinstance(value, str) else canonical(value)}


def parse_manifest(text: bytes, stage: str, key: str) -> Manifest | None:
    """The manifest, or None when it is garbled or not one of this identity."""
    try:
        found = Manifest.model_validate_json(text)
    except ValueError:
        return None
    upstream = {name: reference.fingerprint for name, reference in found.inputs.items()}
    identity = fingerprint(stage, found.version, found.config, upstream, found.files)
    return found if found.fingerprint == key == identity else None


def content_digest(manifest: Manifest) -> str:
    """sha256 over the outputs' digests."""
    content = json.dumps({name: file.sha256 for name, file in manifest.outputs.items()})
    return hashlib.sha256(content.encode()).hexdigest()[:32]
