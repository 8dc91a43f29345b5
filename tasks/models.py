"""The LLM of a stage, opened alike whichever stage made it: policy, sft or alignment."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.roots import open_root
from recalign.config import LoadedModelConfig
from recalign.llm.published import is_gguf, source_of
from recalign.llm.storage import StoredPolicy, stored_policy, stored_sft
from tasks.engine.job import Job
from tasks.engine.stage import local_files

if TYPE_CHECKING:
    from recalign.policy import Policy

Loaded = TypeVar("Loaded", bound=LoadedModelConfig)


def model_files(config: LoadedModelConfig) -> dict[str, list[Path]]:
    """What decides a loaded LLM beside its config: a local folder's files, or one GGUF file.

    UserError for a local model that is not there.
    """
    source = source_of(config.model)
    return {"model": [Path(source)]} if is_gguf(source) else local_files("model", source)


def resolved(config: Loaded, device: str) -> Loaded:
    """The settings with the commit that the revision stands for now, and the dtype for `auto`."""
    from recalign.llm.load import resolve_revision  # transformers: seconds
    from recalign.llm.precision import resolved_dtype

    found = {"revision": resolve_revision(config), "dtype": resolved_dtype(config, device)}
    return config.model_copy(update=found)


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


def open_policy(made: Artifact, root: str, device: str, *, trainable: bool = False) -> "Policy":
    """The policy that `made` holds; what an alignment stands on is found under `root`.

    `trainable` keeps an adapter apart from the weights under it, so that it can be trained on.
    """
    return stored(made, root).load(device, trainable=trainable)


def first_of(made: Artifact, root: str) -> Artifact:
    """The policy before any alignment: `made` itself, or what its alignments started from."""
    while made.manifest.stage == "alignment":
        made = _start_of(made, root)
    return made


def _start_of(alignment: Artifact, root: str) -> Artifact:
    return open_root(root).open(alignment.manifest.inputs["start"])


def stored(made: Artifact, root: str) -> StoredPolicy:
    """How the policy that `made` holds is stored; what it stands on lies under `root`."""
    match made.manifest.stage:
        case "policy":
            return stored_policy(made.folder)
        case "sft":
            return stored_sft(made.folder)
        case "alignment":
            return stored(_start_of(made, root), root).trained(made.folder)
        case other:
            raise ValueError(f"stage {other} makes no policy")
