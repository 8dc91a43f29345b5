"""Where artifacts lie: a folder, or a URL with a folder of local copies."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recalign.artifacts import claims
from recalign.artifacts.artifact import Artifact
from recalign.artifacts.claims import ClaimedLock, Lock
from recalign.artifacts.digests import file_digest, stamp, write_atomically
from recalign.artifacts.manifest import Manifest, parse_manifest
from recalign.artifacts.remote import MANIFEST, Remote
from recalign.artifacts.sealing import STAMPS
from recalign.artifacts.store import COLLECTING, Store

log = logging.getLogger(__name__)

PUBLISHED = ".published"  # in a local copy: the artifact has been at the URL
AT_ONCE = 16  # manifests that the URL is asked for at the same time


def is_url(root: str) -> bool:
    """Whether a root is a URL, as s3://bucket/prefix."""
    return "://" in root


def cache_folder() -> Path:
    """Where copies and fetched LLMs lie: RECALIGN_CACHE (with ~), else ~/.cache/recalign."""
    given = os.environ.get("RECALIGN_CACHE")
    return Path(os.path.expanduser(given)) if given else Path.home() / ".cache" / "recalign"


def local_root(root: str) -> Path:
    """The folder of a root, or that of its local copies, below `cache_folder`."""
    if not is_url(root):
        return Path(root)
    return cache_folder() / hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:16]


def open_root(root: str) -> Store:
    """The artifacts at a folder or URL."""
    return RemoteStore(root) if is_url(root) else Store(root)


class RemoteStore(Store):
    """Artifacts at a URL. Stages read and write local copies; what is committed is published.

    Drafts stay local: a killed run continues on its own machine. What another machine computed is
    fetched whole when it is first needed, and used only if every file has the manifest's digest.
    The URL decides what an artifact holds: another machine may have computed it anew there. What is
    gone from the URL is published again from a copy; `discard` deletes both, and other machines'
    copies stay.
    One thread at a time changes a copy on this machine, and one machine publishes an artifact.
    """

    def __init__(self, url: str):
        super().__init__(local_root(url))
        self.remote = Remote(url)
        self._agreed: set[str] = set()  # artifacts whose copy is known to be what is at the URL

    def lock(self, stage: str, key: str) -> Lock:
        """Exclusive among the processes of this machine and of all that use the URL."""
        return ClaimedLock(super().lock(stage, key), self.remote, f".locks/{stage}-{key}.json")

    @property
    def patience(self) -> float:
        """Long enough for a living holder to renew its claim."""
        return claims.PATIENCE + claims.BEAT

    def read_note(self, name: str) -> bytes | None:
        """The small file at the URL, which all machines share."""
        return self.remote.read(name)

    def write_note(self, name: str, text: str) -> None:
        """Replace it; an object store does so as a whole."""
        self.remote.write(name, text.encode())

    def delete_note(self, name: str) -> None:
        """Delete it for all machines, if it is there."""
        with contextlib.suppress(FileNotFoundError), self.remote.asked():
            self.remote.files.rm_file(f"{self.remote.path}/{name}")

    def notes(self, folder: str) -> list[str]:
        """The names of such files there, sorted."""
        return self.remote.notes(folder)

    def is_busy(self) -> bool:
        """Whether a process of this machine, or a claim that stays fresh, says so."""
        if super().is_busy():
            return True
        names = [name for name in self.notes(".locks") if name != f".locks/{COLLECTING}.json"]
        held = {name: self.read_note(name) for name in names}
        if held:
            time.sleep(claims.PATIENCE)
        now = {name: self.read_note(name) for name in held}
        for name, was in held.items():
            if now[name] == was and name.startswith(".locks/run-"):  # of a killed run
                self.delete_note(name)
        return any(now[name] not in (None, was) for name, was in held.items())

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """The manifest of what is at the URL, else of the local copy.

        A copy that has never been there counts as it is, and so does one that was compared already.
        """
        here = self._manifest_here(stage, key)
        if here and not self._may_be_outdated(stage, key):
            return here
        return self._remote_manifest(stage, key) or here

    def _may_be_outdated(self, stage: str, key: str) -> bool:
        """Whether another machine may have put other content at the URL since the copy was made."""
        return key not in self._agreed and (self.folder(stage, key) / PUBLISHED).exists()

    def _remote_manifest(self, stage: str, key: str) -> Manifest | None:
        text = self.remote.read(f"{stage}/{key}/{MANIFEST}")
        found = parse_manifest(text, stage, key) if text is not None else None
        if text is not None and found is None:
            told = "%s/%s at %s: its manifest is not used: it is garbled, or not of this artifact"
            log.warning(told, stage, key, self.remote.url)
        return found

    def _copying(self, stage: str, key: str) -> Lock:
        """Held by whoever makes or replaces a local copy: seconds to minutes, never for a stage."""
        return super().lock("copy", f"{stage}-{key}")

    def _publishing(self, stage: str, key: str) -> Lock:
        """Held while an artifact is written to the URL: of two at once the files would mix."""
        return self.lock("publish", f"{stage}-{key}")

    def known(self, stage: str, key: str) -> Manifest | None:
        """As `find`, but nothing is fetched; a damaged copy of what is at the URL is deleted."""
        local = Store.find(self, stage, key)
        if local and key in self._agreed:
            return local.manifest
        remote = self._remote_manifest(stage, key)
        if local and not _is_outdated(local, remote):
            return local.manifest
        if remote and self.folder(stage, key).exists():
            with self._copying(stage, key):
                local = Store.find(self, stage, key)  # fetched meanwhile, perhaps
                if local is None or _is_outdated(local, remote):
                    Store.discard(self, stage, key)
        return remote

    def find(self, stage: str, key: str) -> Artifact | None:
        """The local copy, made now if it has to be; None when there is none that is undamaged."""
        found = super().find(stage, key)
        if found and key in self._agreed:
            return found
        with self._copying(stage, key):
            return self._agree(stage, key)

    def _agree(self, stage: str, key: str, *, publishing: bool = False) -> Artifact | None:
        """Make the local copy and what is at the URL the same; looks at both first."""
        found, remote = super().find(stage, key), self._remote_manifest(stage, key)
        if found is None or _is_outdated(found, remote):
            return self._fetch(remote) if remote else None
        if remote is None or remote.digest != found.manifest.digest:
            # Deleted there, or the run that made it did not get that far, or another machine is
            # publishing its own right now.
            if not publishing:
                with self._publishing(stage, key):
                    return self._agree(stage, key, publishing=True)
            self._publish(found)
        self._agreed.add(key)
        return found

    def _fetch(self, manifest: Manifest) -> Artifact | None:
        stage, key = manifest.stage, manifest.fingerprint
        draft = self.root / stage / f".fetch-{key}-{uuid.uuid4().hex}"
        log.info("fetching %s from %s", manifest.reference.name, self.remote.url)
        try:
            self.remote.fetch(stage, key, manifest, draft)
            wrong = [n for n, o in manifest.outputs.items() if file_digest(draft / n) != o.sha256]
            if not wrong:
                self._put_in_place(draft, manifest)
        except FileNotFoundError as error:
            wrong = [str(error)]
        finally:  # whatever ended it: the copy may be gigabytes
            shutil.rmtree(draft, ignore_errors=True)
        if wrong:
            name, url = manifest.reference.name, self.remote.url
            log.warning("%s at %s is damaged (%s): not used", name, url, wrong[0])
            return None
        self._agreed.add(key)
        return super().find(stage, key)

    def _put_in_place(self, draft: Path, manifest: Manifest) -> None:
        """Make the copy, which is whole, the local one."""
        stamps = {name: stamp(draft / name) for name in manifest.outputs}
        write_atomically(draft / STAMPS, json.dumps(stamps))
        write_atomically(draft / PUBLISHED, "")
        write_atomically(draft / MANIFEST, manifest.model_dump_json(indent=1))
        super().discard(manifest.stage, manifest.fingerprint)  # damaged, or outdated
        draft.rename(self.folder(manifest.stage, manifest.fingerprint))

    def check(self, manifest: Manifest) -> list[str]:
        """What is wrong with the files at the URL, and with those of the local copy."""
        stage, key = manifest.stage, manifest.fingerprint
        wrong = super().check(manifest) if Store.manifest(self, stage, key) else []
        remote = self._remote_manifest(stage, key)
        return wrong + (self.remote.damage(remote) if remote else [])

    def _promote(self, draft: Path, manifest: Manifest) -> Artifact:
        """Make the draft an artifact here, then at the URL."""
        stage, key = manifest.stage, manifest.fingerprint
        with self._copying(stage, key):
            made = super()._promote(draft, manifest)
            with self._publishing(stage, key):
                self._publish(made)
        return made

    def _publish(self, made: Artifact) -> None:
        self.remote.publish(made.folder, made.manifest)
        write_atomically(made.folder / PUBLISHED, "")

    def discard(self, stage: str, key: str) -> None:
        """Delete an artifact at the URL, then its copy."""
        self.remote.discard(stage, key)
        super().discard(stage, key)

    def manifests(self, stage: str | None = None) -> Iterator[Manifest]:
        """Manifests at the URL, and of what is only here, oldest first.

        The URL is asked for many at a time: a root holds hundreds.
        """
        found = {m.fingerprint: m for m in super().manifests(stage)}
        there = self.remote.keys(stage)
        asked = [one for one in there if one[1] not in found or self._may_be_outdated(*one)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for manifest in pool.map(lambda one: self._remote_manifest(*one), asked):
                if manifest:
                    found[manifest.fingerprint] = manifest
        yield from sorted(found.values(), key=lambda m: (m.created, m.fingerprint))


def _is_outdated(copy: Artifact, remote: Manifest | None) -> bool:
    """Whether the URL has another content by now than this copy, which has been there."""
    known = (copy.folder / PUBLISHED).exists()
    return known and remote is not None and remote.digest != copy.manifest.digest
