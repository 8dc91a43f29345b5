"""File digests, remembered by (size, mtime, inode) as git's index does."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from recalign.errors import UserError

Stamp = list[int]  # size, mtime in ns, inode


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """sha256, or another digest, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


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

    def digest(self, path: Path, algorithm: str = "sha256", at: Path | None = None) -> str:
        """sha256, or another digest, of `path`; `at`: where it will lie, if it is moved."""
        key, now = str((at or path).resolve()), stamp(path)
        key = key if algorithm == "sha256" else f"{algorithm} {key}"
        match self._known.get(key):
            case [known, str() as digest] if known == now:
                return digest
        digest = file_digest(path, algorithm)
        self._known[key] = [now, digest]
        with contextlib.suppress(OSError):  # a full disk: nothing is remembered
            write_atomically(self._path, json.dumps(self._known))
        return digest


def file_digests(files: dict[str, list[Path]], digest_of: Callable[[Path], str]) -> dict[str, str]:
    """The files' digests by role and name; files of one name are told apart by their place."""
    digests: dict[str, str] = {}
    for role, paths in files.items():
        for place, path in enumerate(paths):
            name = f"{role}/{path.name}"
            name = f"{name} ({place})" if name in digests else name
            digests[name] = digest_of(path)
    return digests


def local_files(role: str, name: str, *, hidden: bool = False) -> dict[str, list[Path]]:
    """The files of a model named by its folder: their content counts, beside the setting itself.

    Not the hidden ones, unless asked for: what git and downloads note there (.git, .cache) changes
    while the model does not. None for a hub id. UserError for what can only be a path, and is not
    there, and for no name.
    """
    if not name:  # as a path it would be the folder that the run was started in
        raise UserError(f"the {role} has no name: give a folder or a hub id")
    folder = Path(os.path.expanduser(name))  # an unknown ~user stays as it is
    if name.startswith(("/", "./", "../", "~")) and not folder.is_dir():
        raise UserError(f"{name}: there is no such folder ({role})")
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    files = [path for path in found if hidden or not _is_hidden(path.relative_to(folder))]
    return {role: files} if files else {}


def _is_hidden(path: Path) -> bool:
    """Whether a file's name, or that of a folder on the way to it, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)
