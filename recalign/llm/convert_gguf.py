"""A GGUF file (llama.cpp's format) as an ordinary folder of safetensors."""

import importlib.util
import shutil
import struct
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils.logging import disable_progress_bar

from recalign.errors import UserError, install
from recalign.llm.hub_errors import explained


def converted(file: Path, folder: Path, work: Path, dtype: torch.dtype) -> Path:
    """`folder`, filled with the file's model and tokenizer; its weights are no longer quantised.

    Takes a minute or more, once: a folder that is there is whole. It is made in `work`, on the
    same disk; processes that ask at once wait for the first. Raises UserError where the package
    `gguf` is missing, and for what transformers cannot open: a damaged file, or an architecture
    that it does not read from this format.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{file}: needs the package gguf: {install('gguf')}")
    draft = work / "converted"
    with FileLock(f"{draft}.lock"):
        if not folder.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
            with explained(str(file), None):
                _require_whole(file)
                _convert(file, draft, dtype)
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(folder)
    return folder


def _require_whole(file: Path) -> None:
    """UserError unless the header can be read, and all weights that it lists are there."""
    from gguf import GGUFReader  # an extra

    try:
        GGUFReader(file)  # maps the weights into memory, and so reads the header alone
    except (IndexError, KeyError, OverflowError, ValueError, struct.error) as error:
        raise UserError(f"{file}: no whole GGUF file: download it again") from error


def _convert(file: Path, folder: Path, dtype: torch.dtype) -> None:
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.hf_quantizer = None  # else saving wants the quantised weights, which are gone
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
