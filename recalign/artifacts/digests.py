"""File digests, remembered by (size, mtime, inode) as git's index does."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Stamp = list[int]  # size, mtime in ns, inode


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> Stamp:
    """What changes when a file is written again: size, modification time, inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


@contextlib.contextmanager
def whole_file(path: Path, ending: str = "draft", mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write into, which is at `path` once it is whole and on disk, and never before.

    Until then its name has this ending: what a killed process left is overwritten. An error or an
    interrupt leaves nothing. A new file has this mode, less what the umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{ending}")
    try:
        with open(draft, "wb", opener=lambda name, how: os.open(name, how, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part."""
    # Others may write it at the same time; where containers share a root, with the same pid.
    with whole_file(path, uuid.uuid4().hex, mode) as file:
        file.write(text.encode())


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a side file; None when there is none, or what is there is garbled."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def sync(path: Path) -> None:
    """Make sure that a file, or which files a folder has, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class DigestMemory:
    """Digests of raw files that are hashed again only when the file changed."""

    def __init__(self, path: Path):
        self._path = path
        # if the memory is lost, files are hashed once more, nothing worse
        self._known = read_object(path) or {}

    def digest(self, path: Path) -> str:
        """sha256 of `path`."""
        key, now = str(path.resolve()), stamp(path)
        match self._known.get(key):
            case [known, str() as digest] if known == now:
                return digest
        digest = file_digest(path)
        self._known[key] = [now, digest]
        with contextlib.suppress(OSError):  # a full disk: nothing is remembered
            write_atomically(self._path, json.dumps(self._known))
        return digest
