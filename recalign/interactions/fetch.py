"""Downloads that resume, are checked before they count, and show the licence terms first."""

import gzip
import logging
import os
import re
import time
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from recalign.artifacts.digests import DigestMemory
from recalign.errors import BadInputError, UserError
from recalign.progress import Progress, silent

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

ATTEMPTS = 4
BLOCK = 1 << 20
BY_HAND = "or fetch it by hand and name its folder in interactions.raw_folder"


class UnknownChecksum(BadInputError):
    """A whole download that nobody has vouched for: neither its publisher nor the user."""

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__(f"{name}: SHA-256 {sha256} is not among those stated")
        self.name = name
        self.sha256 = sha256


@dataclass(frozen=True)
class Download:
    """A publisher's file: where it is, where it goes, under which terms, and its checksums."""

    url: str
    target: Path
    terms: str
    md5: str | None = None
    """None: the publisher gives none."""
    sha256: Collection[str] = ()
    """Any of these will do where there is no MD5."""

    def is_known(self, file: Path) -> bool:
        """Whether `file` has the MD5, or one of the SHA-256."""
        if self.md5 is not None:
            return self.digest(file, "md5") == self.md5
        return bool(self.sha256) and self.digest(file, "sha256") in self.sha256

    def digest(self, file: Path, algorithm: str) -> str:
        """Of the target, or of what will be it; remembered beside the target, until it changes."""
        memory = DigestMemory(self.target.with_name(".digests.json"))
        return memory.digest(file, algorithm, at=self.target)


def fetch(file: Download, progress: Progress = silent, pause: float = 1.0) -> Path:
    """`file.target`, downloaded unless a sound copy lies there; the terms are logged before.

    A partial download stays in `<target>.part` and is resumed by the next call. The file takes its
    name only when its length and its checksum are right. Between attempts it waits `pause`, then
    twice as long, and so on (seconds). Raises BadInputError for a truncated or wrong file,
    UnknownChecksum for a sound one of another SHA-256 (it stays, and is not downloaded again),
    UserError when the server cannot be reached or the folder cannot be written.
    """
    target = file.target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.exists():
                if file.is_known(target):
                    return target
                if file.md5 is None and not _damage(target, target.name):
                    raise UnknownChecksum(target.name, file.digest(target, "sha256"))
            logger.warning(file.terms)
            part = target.with_name(f"{target.name}.part")
            _download(file.url, part, progress, pause)
            _verify(file, part)
            os.replace(part, target)
            _validator_of(part).unlink(missing_ok=True)
    except OSError as problem:
        raise UserError(_unwritable(target, problem)) from problem
    return target


def _unwritable(target: Path, problem: OSError) -> str:
    return (
        f"{target.parent}: cannot be written ({problem.strerror or problem}); what is there is "
        "kept, run again to resume"
    )


def _download(url: str, part: Path, progress: Progress, pause: float) -> None:
    """Fill `part` up to the length the server tells, in at most ATTEMPTS connections."""
    import httpx  # late: most runs read files that are at hand

    timeout = httpx.Timeout(60, connect=20)
    trouble = ""
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            try:
                if _continue(client, url, part, progress):
                    return
                trouble = "the connection ended early"
            except httpx.TransportError as problem:
                trouble = str(problem) or type(problem).__name__
            logger.warning("%s: %s", url, trouble)
    if part.exists() and part.stat().st_size:
        raise BadInputError(
            f"{url}: the download was cut short after {part.stat().st_size} bytes ({trouble}); "
            f"run again to resume it, {BY_HAND}"
        )
    raise UserError(f"{url}: cannot be reached ({trouble}); try again later, {BY_HAND}")


def _continue(client: "httpx.Client", url: str, part: Path, progress: Progress) -> bool:
    """One connection: append what is missing to `part`; True when it is complete."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # else a .gz may arrive unpacked
    validator = _validator_of(part)
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator.exists():
            headers["If-Range"] = validator.read_text()
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == 416:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if total != str(have):
                part.unlink()
            return total == str(have)
        if answer.status_code >= 500:
            return False
        if answer.is_error:
            raise UserError(f"{url}: the server answered {answer.status_code}; {BY_HAND[3:]}")
        resumed = re.match(rf"bytes {have}-", answer.headers.get("Content-Range", ""))
        have = have if answer.status_code == 206 and resumed else 0
        length = answer.headers.get("Content-Length")
        total_bytes = have + int(length) if length else 0
        _note_validator(answer, validator)
        with part.open("ab" if have else "wb") as file:  # blocks as they come: none is lost
            for block in answer.iter_raw():
                file.write(block)
                have += len(block)
                progress(have, max(have, total_bytes), part.name.removesuffix(".part"))
    return not total_bytes or have == total_bytes


def _validator_of(part: Path) -> Path:
    """Beside a partial file: what the server must still have for the rest to fit."""
    return part.with_name(f"{part.name}.validator")


def _note_validator(answer: "httpx.Response", validator: Path) -> None:
    tag = answer.headers.get("ETag", "")
    value = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
    if value:
        validator.write_text(value)
    else:
        validator.unlink(missing_ok=True)


def md5_beside(url: str, target: Path) -> str:
    """The MD5 that the publisher keeps in `<url>.md5`, noted beside `target` while that exists.

    Raises UserError when it cannot be fetched, or not be written.
    """
    import httpx

    note = target.with_name(f"{target.name}.md5")
    if not (target.exists() and note.exists()):
        try:
            answer = httpx.get(f"{url}.md5", timeout=20, follow_redirects=True)
        except httpx.TransportError as problem:
            raise UserError(f"{url}.md5: cannot be reached ({problem}); {BY_HAND[3:]}") from problem
        found = re.search(r"\b[0-9a-f]{32}\b", answer.text.lower()) if answer.is_success else None
        if not found:
            raise UserError(f"{url}.md5: holds no MD5 (status {answer.status_code}); {BY_HAND[3:]}")
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(found.group())
        except OSError as problem:
            raise UserError(_unwritable(target, problem)) from problem
    return note.read_text()


def _verify(file: Download, part: Path) -> None:
    """Delete `part` and raise BadInputError if it is wrong; UnknownChecksum if nobody can tell."""
    if file.is_known(part):
        return
    if file.md5 is not None:
        problem = f"the file's MD5 is {file.digest(part, 'md5')}, the publisher's is {file.md5}"
    else:
        problem = _damage(part, file.target.name)
        if not problem:
            raise UnknownChecksum(file.target.name, file.digest(part, "sha256"))
    part.unlink()
    raise BadInputError(f"{file.url}: {problem}; it was deleted, run again, {BY_HAND}")


def _damage(part: Path, name: str) -> str:
    """What keeps a gzip or zip file from being unpacked; empty: nothing."""
    kind = "zip" if name.endswith(".zip") else "gzip"
    try:
        if kind == "zip":
            with zipfile.ZipFile(part) as archive:
                damaged = archive.testzip()
            return f"it is no whole zip file ({damaged} is damaged)" if damaged else ""
        with gzip.open(part) as stream:
            while stream.read(BLOCK):
                pass
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as problem:
        return f"it is no whole {kind} file ({problem})"
    return ""
