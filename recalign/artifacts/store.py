"""The artifact root: find, check, draft, commit and delete artifact folders."""

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from recalign.artifacts.artifact import WORK, Artifact, Draft
from recalign.artifacts.claims import Lock
from recalign.artifacts.digests import (
    DigestMemory,
    file_digest,
    read_object,
    stamp,
    sync,
    write_atomically,
)
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Manifest, Reference, parse_manifest, require_same
from recalign.artifacts.provenance import git_commit, package_versions
from recalign.artifacts.sealing import MANIFEST, STAMPS, seal
from recalign.errors import UserError

COLLECTION = ("garbage", "collection")  # the lock of whoever deletes artifacts
COLLECTING = "-".join(COLLECTION)


class Store:
    """All artifacts under one root folder."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"runtime.root: cannot create {self.root}: {error.strerror}") from error

    @property
    def digests(self) -> DigestMemory:
        """Remembered digests of raw files."""
        return DigestMemory(self.root / ".digests.json")

    def folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key

    def lock(self, stage: str, key: str) -> Lock:
        """An exclusive lock on one artifact; the kernel drops it when its process dies."""
        folder = self.root / ".locks"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            where = f"runtime.root: cannot write to {self.root}"
            raise UserError(f"{where}: {error.strerror}") from error
        return FileLock(folder / f"{stage}-{key}.lock")

    @property
    def patience(self) -> float:
        """Seconds of waiting for a lock after which its holder is known to be alive."""
        return 0.0

    def read_note(self, name: str) -> bytes | None:
        """A small file beside the artifacts, as ".series/news.json"; None: there is none."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write_note(self, name: str, text: str) -> None:
        """Replace such a file: whoever reads it sees the old content or the new."""
        write_atomically(self.root / name, text)

    def delete_note(self, name: str) -> None:
        """Delete such a file, if it is there."""
        (self.root / name).unlink(missing_ok=True)

    def notes(self, folder: str) -> list[str]:
        """The names of such files in a folder, sorted."""
        return sorted(f"{folder}/{path.name}" for path in (self.root / folder).glob("*.json"))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep garbage collection away, between stages too; first wait for one under way.

        A root that this user cannot write to is only read: whoever can is trusted to leave it.
        """
        if self.root.is_dir() and not os.access(self.root, os.W_OK):
            yield
            return
        name = uuid.uuid4().hex
        with self.lock("run", name):
            with self.lock(*COLLECTION):
                pass
            yield
        (self.root / ".locks" / f"run-{name}.lock").unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Yields whether no run is at work here; none starts before the block ends."""
        try:
            with self.lock(*COLLECTION).acquire(timeout=self.patience):
                yield not self.is_busy()
        except Timeout:
            yield False

    def is_busy(self) -> bool:
        """Whether a running process holds a lock here: a run, a series or a stage."""
        for path in (self.root / ".locks").glob("*.lock"):
            if path.stem == COLLECTING:
                continue
            try:
                with FileLock(path).acquire(timeout=0):
                    pass
            except Timeout:
                return True
            if path.stem.startswith("run-"):  # of a killed run
                path.unlink(missing_ok=True)
        return False

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """The manifest of an artifact, or None when there is none, or not one of this identity."""
        return self._manifest_here(stage, key)

    def _manifest_here(self, stage: str, key: str) -> Manifest | None:
        return _manifest_in(self.folder(stage, key), stage, key)

    def known(self, stage: str, key: str) -> Manifest | None:
        """The manifest of what `find` would find."""
        artifact = self.find(stage, key)
        return artifact.manifest if artifact else None

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact, if it is complete and undamaged.

        A file whose size, time or inode changed since it was last hashed is hashed again.
        """
        manifest = self._manifest_here(stage, key)
        if manifest is None:
            return None
        folder = self.folder(stage, key)
        return Artifact(folder, manifest) if not self.damage(folder, manifest) else None

    def open(self, reference: Reference) -> Artifact:
        """The artifact behind a reference; UserError when it is missing, damaged or another now."""
        if (artifact := self.find(reference.stage, reference.fingerprint)) is None:
            raise _missing(reference)
        require_same(artifact.manifest, reference)
        return artifact

    def told(self, reference: Reference) -> Manifest:
        """The manifest of what `open` would open, with its checks; nothing is fetched."""
        if (manifest := self.known(reference.stage, reference.fingerprint)) is None:
            raise _missing(reference)
        require_same(manifest, reference)
        return manifest

    def damage(self, folder: Path, manifest: Manifest, *, rehash: bool = False) -> list[str]:
        """What is wrong with an artifact's files; `rehash` reads every byte again."""
        stamps = read_object(folder / STAMPS) or {}
        wrong, renewed = [], False
        if manifest.digest != manifest.content:
            wrong.append(f"{MANIFEST} names other files than it was written with")
        if manifest.told not in ("", manifest.telling):
            wrong.append(f"{MANIFEST} tells other figures than it was written with")
        for name, output in manifest.outputs.items():
            path = folder / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif path.stat().st_size != output.size:
                wrong.append(f"{name} has {path.stat().st_size} bytes, not {output.size}")
            elif rehash or stamps.get(name) != stamp(path):
                if file_digest(path) != output.sha256:
                    wrong.append(f"{name} has other content than it was written with")
                stamps[name], renewed = stamp(path), True
        if renewed and not wrong and os.access(folder, os.W_OK):
            with contextlib.suppress(OSError):  # costs one more hashing, nothing else
                write_atomically(folder / STAMPS, json.dumps(stamps))
        return wrong

    def check(self, manifest: Manifest) -> list[str]:
        """What is wrong with an artifact's files wherever they are; reads every byte."""
        folder = self.folder(manifest.stage, manifest.fingerprint)
        return self.damage(folder, manifest, rehash=True)

    def draft(self, identity: Identity, inputs: dict[str, Reference]) -> Draft:
        """Open (or find again) the draft of an artifact; outputs of a killed run are removed."""
        folder = self._draft_folder(identity)
        started_from = {name: reference.digest for name, reference in inputs.items()}
        _empty_except_work(folder, started_from)
        manifest = Manifest(
            **(vars(identity) | {"inputs": inputs}),
            fingerprint=identity.fingerprint,
            created=datetime.now(UTC),
            git_commit=git_commit(),
            packages=package_versions(),
        )
        return Draft(folder, manifest)

    def finish(self, identity: Identity, inputs: dict[str, Reference]) -> Artifact | None:
        """The artifact, where a run was killed when its draft was whole; None: there is no such.

        A commit that got as far as the manifest has only renames left.
        """
        folder = self._draft_folder(identity)
        manifest = _manifest_in(folder, identity.stage, identity.fingerprint)
        if manifest is None or manifest.inputs != inputs or self.damage(folder, manifest):
            return None
        return self._promote(folder, manifest)

    def commit(self, draft: Draft) -> Artifact:
        """Make the draft an artifact: hash, sync, write the manifest last, rename once.

        Until then the checkpoints stay where they are: a full disk here costs no training. A kill
        after that costs nothing either: `finish` makes the rest of the renames.
        """
        seal(draft)
        return self._promote(draft.folder, draft.manifest)

    def _draft_folder(self, identity: Identity) -> Path:
        return self.root / identity.stage / f".draft-{identity.fingerprint}"

    def _promote(self, draft: Path, manifest: Manifest) -> Artifact:
        """Make a whole draft the artifact; what is replaced, and its checkpoints, are deleted."""
        final = self.folder(manifest.stage, manifest.fingerprint)
        trash = self._trash(final)
        trash.mkdir()
        if (work := draft / WORK).exists():
            work.rename(trash / WORK)
        if final.exists():  # a reader misses it for two renames only, not while files are deleted
            final.rename(trash / "replaced")
        draft.rename(final)
        sync(final.parent)
        # Ours, and what killed commits of this artifact left: another's may be at work right now.
        for left in final.parent.glob(f".trash-{final.name}-*"):
            shutil.rmtree(left, ignore_errors=left != trash)
        return Artifact(final, manifest)

    def discard(self, stage: str, key: str) -> None:
        """Delete an artifact: out of sight in one rename, then its files."""
        folder = self.folder(stage, key)
        if folder.exists():
            trash = self._trash(folder)
            folder.rename(trash)
            shutil.rmtree(trash)

    def _trash(self, folder: Path) -> Path:
        """A free name beside an artifact for what is about to be deleted."""
        trash = folder.with_name(f".trash-{folder.name}-{os.getpid()}")
        shutil.rmtree(trash, ignore_errors=True)
        return trash

    def manifests(self, stage: str | None = None) -> Iterator[Manifest]:
        """Manifests of all complete artifacts, oldest first."""
        if stage and not re.fullmatch(r"\w+", stage):  # a path, or a pattern
            return
        pattern = f"{stage or '[!.]*'}/[!.]*/{MANIFEST}"
        places = [path.parts[-3:-1] for path in self.root.glob(pattern)]
        found = [m for stage, key in places if (m := self._manifest_here(stage, key))]
        yield from sorted(found, key=lambda m: (m.created, m.fingerprint))

    def without_manifest(self) -> list[Path]:
        """Folders of artifacts whose manifest is missing or garbled."""
        folders = (path for path in self.root.glob(f"[!.]*/{'[0-9a-f]' * 32}") if path.is_dir())
        return sorted(p for p in folders if self.manifest(p.parent.name, p.name) is None)


def _manifest_in(folder: Path, stage: str, key: str) -> Manifest | None:
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise UserError(f"runtime.root: cannot read {error.filename}: {error.strerror}") from error
    return parse_manifest(text, stage, key)


def _empty_except_work(draft: Path, started_from: dict[str, str]) -> None:
    """Keep checkpoints only if they were made from the same content of every input."""
    note = draft / WORK / ".inputs.json"
    same = read_object(note) == started_from
    if draft.exists():
        for path in draft.iterdir():
            if not (same and path.name == WORK):
                whole = path.is_dir() and not path.is_symlink()
                shutil.rmtree(path) if whole else path.unlink()
    write_atomically(note, json.dumps(started_from))


def _missing(reference: Reference) -> UserError:
    return UserError(f"{reference.name} is missing or damaged: run again to recompute it")
