"""Where an exported model goes: a folder that is whole or not there, and a hub."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from recalign.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WRITTEN = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*",
    "merges.txt", "chat_template*", "base/*", "oracle.json", "recommender.json", "items.parquet",
)  # fmt: skip
"""What one export writes and another does not: whole weights would lie beside a new adapter."""

What = Literal["policy", "recommender", "oracle"]
"""What of a run can be exported."""


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which is at `path` once the block ends without an error.

    UserError where something is there already, or another export makes it: an export never replaces
    what is in use. What a killed one left is cleared by the next.
    """
    path = path.resolve()  # "." has no name to put a draft beside
    _require_free(path)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            try:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                yield draft
                _require_free(path)
                if path.is_dir():
                    path.rmdir()
                draft.rename(path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other exports from making the same folder; UserError where one is at it."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{path}: another export is making it") from error
    with held:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _require_free(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is there already: name a new folder, or delete it first")


def hub_token(hub_id: str) -> str:
    """HF_TOKEN of the environment; UserError where it is missing."""
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise UserError(f"--push {hub_id} needs a token of the hub in the variable HF_TOKEN")
    return token


def require_private(hub_id: str) -> None:
    """Before anything is written: UserError where the hub shows this repository to everybody.

    A card holds a user's history, and the hub leaves a repository that is there as public as it is.
    One that is not there yet will be private.
    """
    api = _hub(hub_id)
    from huggingface_hub.errors import RepositoryNotFoundError

    with _told_of(hub_id, "nothing is written yet"), suppress(RepositoryNotFoundError):
        _require_private(api, hub_id)


def upload(folder: Path, hub_id: str) -> str:
    """Upload the folder to a private repository of the hub; its address.

    What an earlier export of other files left there goes: the repository's history keeps it.
    UserError where the token (`hub_token`) is missing or refused, or the repository is public.
    """
    api = _hub(hub_id)
    with _told_of(hub_id, f"{folder} is whole"):
        api.create_repo(hub_id, private=True, exist_ok=True)
        _require_private(api, hub_id)
        gone = list(WRITTEN)
        made = api.upload_folder(repo_id=hub_id, folder_path=folder, delete_patterns=gone)
    return str(made)


def _hub(hub_id: str) -> "HfApi":
    token = hub_token(hub_id)
    from huggingface_hub import HfApi

    return HfApi(token=token)


def _require_private(api: "HfApi", hub_id: str) -> None:
    if not api.model_info(hub_id).private:
        raise UserError(
            f"--push {hub_id}: everybody can read this repository, and the card holds a user's "
            "history: make it private on the hub, or name another"
        )


@contextmanager
def _told_of(hub_id: str, state: str) -> Iterator[None]:
    """Turn what the hub refuses into one line, which tells also how far the export is."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except (OSError, ValueError, HTTPError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{hub_id}: the hub did not take it: {first}; {state}") from error
