"""Where the weights of a stage's first LLM come from: a folder, a hub id, or a GGUF file."""

import json
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from recalign.artifacts.digests import local_files, write_atomically
from recalign.config import LoadedModelConfig
from recalign.llm.published import is_gguf, source_of
from tasks.engine.job import Job

Loaded = TypeVar("Loaded", bound=LoadedModelConfig)


def model_files(config: LoadedModelConfig) -> dict[str, list[Path]]:
    """What decides a loaded LLM beside its config: a local folder's files, or one GGUF file.

    UserError for a local model that is not there.
    """
    source = source_of(config.model)
    return {"model": [Path(source)]} if is_gguf(source) else local_files("model", source)


def resolved(job: Job, config: Loaded) -> Loaded:
    """The settings with the commit that the revision stands for, and the dtype for `auto`.

    A stage that was killed goes on with what it found first: the hub may have a newer commit since,
    and another machine another dtype.
    """
    from recalign.llm.load import resolve_revision  # transformers: seconds
    from recalign.llm.precision import resolved_dtype

    known = job.draft.work / "resolved.json"
    with FileLock(f"{known}.lock"):  # the processes of a launch ask at once: one of them asks
        if not known.exists():
            dtype = resolved_dtype(config, job.device)
            found = {"revision": resolve_revision(config), "dtype": dtype}
            write_atomically(known, json.dumps(found))
    return config.model_copy(update=json.loads(known.read_text()))


def first_weights(job: Job, config: LoadedModelConfig, folder: Path) -> str | Path:
    """The folder or hub id of the LLM that the settings name; a GGUF file is converted to `folder`.

    Raises UserError for a GGUF file that cannot be read.
    """
    source = source_of(config.model)
    if not is_gguf(source):
        return config.model
    import torch

    from recalign.llm.convert_gguf import converted  # transformers: seconds

    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    return converted(Path(source), folder, job.draft.work, dtype)
