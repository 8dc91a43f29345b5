"""Artifacts under a URL (S3 or any other fsspec file system): published whole, manifest last."""

import glob
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from filelock import Timeout

from recalign.artifacts.manifest import Manifest
from recalign.artifacts.names import is_inside
from recalign.errors import UserError, install

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs"}  # where a path needs no folders


def make_folder(files: Any, path: str) -> None:
    """Make the folder where there are folders; an object store would make a missing bucket."""
    own = files.protocol
    if BUCKETS.isdisjoint([own] if isinstance(own, str) else own):
        files.makedirs(path, exist_ok=True)


class Remote:
    """The folders `<url>/<stage>/<fingerprint>/`, laid out as under a local root.

    Every method raises UserError when the place cannot be reached or refuses.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        try:
            with self.asked():
                found: tuple[Any, str] = fsspec.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise UserError(f"{url}: {error}; for s3:// {install('s3')}") from error
        self.files, self.path = found

    def place(self, stage: str, key: str) -> str:
        """Where an artifact lies."""
        return f"{self.path}/{stage}/{key}"

    def read(self, name: str) -> bytes | None:
        """The content of the file there; None: there is none."""
        with self.asked():
            try:
                return bytes(self.files.cat_file(f"{self.path}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes, mode: str = "overwrite") -> None:
        """Replace the file there, as a whole; mode "create": FileExistsError if there is one."""
        path = f"{self.path}/{name}"
        try:
            with self.asked():
                make_folder(self.files, path.rpartition("/")[0])
                self.files.pipe_file(path, content, mode=mode)
        except FileNotFoundError as error:
            raise self._nowhere(error) from error

    def _nowhere(self, error: FileNotFoundError) -> UserError:
        return UserError(f"{self.url}: no such place to write to ({error})")

    def keys(self, stage: str | None = None) -> list[tuple[str, str]]:
        """Stage and fingerprint of every artifact with a manifest."""
        with self.asked():
            found = self.files.glob(f"{glob.escape(self.path)}/{stage or '*'}/*/{MANIFEST}")
        parts = [str(path).split("/")[-3:-1] for path in found]
        return sorted((stage, key) for stage, key in parts if is_inside(f"{stage}/{key}"))

    def notes(self, folder: str) -> list[str]:
        """The names of JSON files in a folder there, sorted."""
        with self.asked():
            found = self.files.glob(f"{glob.escape(self.path)}/{folder}/*.json")
        return sorted(f"{folder}/{str(path).rpartition('/')[2]}" for path in found)

    def fetch(self, stage: str, key: str, manifest: Manifest, folder: Path) -> None:
        """Copy the artifact's files into `folder`, as they are; FileNotFoundError: one is gone."""
        for name in manifest.outputs:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.asked():
                self.files.get_file(f"{self.place(stage, key)}/{name}", str(target))

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Copy an artifact there; one that was cut off in the middle does not count.

        An earlier one of the same fingerprint is deleted first, so that no manifest ever describes
        the files of another artifact.
        """
        place = self.place(manifest.stage, manifest.fingerprint)
        try:
            self.discard(manifest.stage, manifest.fingerprint)
            with self.asked():
                for name in manifest.outputs:
                    make_folder(self.files, f"{place}/{name}".rpartition("/")[0])
                    self.files.put_file(str(folder / name), f"{place}/{name}")
                self.files.pipe_file(f"{place}/{MANIFEST}", (folder / MANIFEST).read_bytes())
        except FileNotFoundError as error:
            raise self._nowhere(error) from error

    def discard(self, stage: str, key: str) -> None:
        """Delete an artifact: the manifest first, then the files."""
        place = self.place(stage, key)
        with self.asked():
            for path in (f"{place}/{MANIFEST}", place):
                if self.files.exists(path):
                    self.files.rm(path, recursive=path == place)

    def damage(self, manifest: Manifest) -> list[str]:
        """What is wrong with the files there; reads every byte."""
        place = self.place(manifest.stage, manifest.fingerprint)
        wrong = []
        for name, output in manifest.outputs.items():
            try:
                with self.asked(), self.files.open(f"{place}/{name}", "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                wrong.append(f"{name} is missing at {self.url}")
                continue
            if digest != output.sha256:
                wrong.append(f"{name} has other content at {self.url} than it was written with")
        return wrong

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Turn whatever the file system raises into one line.

        Only what is missing, there already, held or not installed is left to the caller.
        """
        try:
            yield
        except (FileNotFoundError, FileExistsError, Timeout, ImportError, UserError):
            raise
        except Exception as error:
            raise UserError(
                f"{self.url}: {type(error).__name__}: {error}; check the address, the credentials "
                "and the network. What is finished is kept, run again to continue"
            ) from error
