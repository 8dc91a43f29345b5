"""Which files of an LLM's folder go with an adapter: no pickles, no code, nothing hidden."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

COPIED = (
    "*.safetensors", "*.json", "*.jinja", "*.txt", "*.md", "LICENSE*", "LICENCE*", "NOTICE*",
    "tokenizer*.model", "tokenizer*.model.v*", "spiece.model", "sentencepiece*.model", "vocab.bpe",
)  # fmt: skip
"""Weights, settings, tokenizer, templates, licences, cards."""


def copy_base(source: Path, target: Path) -> None:
    """Copy what transformers reads of a causal LM, all of it on the folder's first level.

    Folders below it (.git with its remotes and tokens, checkpoints, weights in other formats), and
    whatever is not known to be needed, stay behind: the copy may be uploaded.
    """
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file() and is_copied(path.name):
            shutil.copy(path, target / path.name)


def is_copied(name: str) -> bool:
    """Whether a file of this name belongs to the model."""
    return not name.startswith(".") and any(fnmatch(name, pattern) for pattern in COPIED)
