"""A full disk or memory while a stage computes, told in one line with what to do about it."""

import ctypes
import errno
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recalign.config import Config, RejectionsConfig
from recalign.errors import OUT_OF_REACH, UserError

_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors and polars
_CUT_SHORT = re.compile(r"inline_container|\d+ requested and \d+ written")  # torch and numpy
_NO_MEMORY = re.compile(  # torch, and oneDNN under it
    r"can't allocate memory|out of memory|could not create a primitive", re.IGNORECASE
)
LACKING = OUT_OF_REACH | {  # what no stage can help, and what lies in its way
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EISDIR,
    errno.ENOTDIR,
}  # fmt: skip  # a file that is not there is a bug
MESSAGE = 200  # characters of a library's own words
KEPT = "what is finished is kept, run again to continue"


@contextmanager
def trouble_explained(stage: str, root: Path, config: Config | None = None) -> Iterator[None]:
    """UserError for what the machine lacks, whichever library ran into it; other errors pass.

    Libraries tell a full disk in words of their own: only some raise an OSError with a number.
    """
    lower = f"a library aborted, as polars does without memory; {_advice(stage, config)}"
    try:
        with _aborts_told(f"recalign: {stage}: {lower}; {KEPT}\n"):
            yield
    except UserError:
        raise
    except Exception as error:
        told = _disk_trouble(error, root) or _memory_trouble(error, stage, config)
        if not told:
            raise
        raise UserError(f"{stage}: {told}; {KEPT}") from error


@contextmanager
def _aborts_told(line: str) -> Iterator[None]:
    """Exit code 1 and this line when compiled code aborts: Python itself never learns of it.

    The C library calls the handler in the thread that aborts, whatever Python is waiting for; a
    handler of Python's would run when that thread is back in Python, which it never is.
    """

    def tell(number: int) -> None:
        os.write(2, line.encode())
        os._exit(1)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(tell)
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = set_handler(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        set_handler(signal.SIGABRT, before)


def _disk_trouble(error: Exception, root: Path) -> str:
    """What is wrong with the disk, or empty."""
    if isinstance(error, OSError) and error.errno in LACKING:
        return f"{error.strerror} ({error.filename or root})"
    if (told := _RUST.search(str(error))) and int(told[1]) in LACKING:
        return f"{os.strerror(int(told[1]))} ({root})"
    if _CUT_SHORT.search(str(error)):
        free = shutil.disk_usage(root).free / 1e6
        return f"a file could not be written to its end, {free:.0f} MB are free ({root})"
    return ""


def _memory_trouble(error: Exception, stage: str, config: Config | None) -> str:
    """That memory ran out and which settings need less of it, or empty."""
    import torch

    out = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not out and not (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return ""
    return f"out of memory ({str(error).strip()[:MESSAGE]}); {_advice(stage, config)}"


def _advice(stage: str, config: Config | None) -> str:
    """What makes a stage need less memory."""
    path = "alignment" if stage == "reference" else stage  # whose settings it takes
    lower = batch_settings(path, config) if config else []
    if stage in ("reasonings", "item_reasonings", "current_reasonings"):
        lower = ["runtime.generation_gb"]
    asks = isinstance(config, RejectionsConfig) and config.needs_sft
    if stage in ("recommendations", "title_serving") or asks:
        lower = ["runtime.generation_rows to 16 or fewer (long prompts are read by few anyway)"]
    return f"lower {' or '.join(lower)}" if lower else "it needs a machine with more"


def batch_settings(path: str, config: Config) -> list[str]:
    """The settings that say how much of this stage is in memory at once."""
    names = list(type(config).model_fields)
    if "micro_batch_size" in names:  # they change the result by rounding only
        return [f"{path}.micro_batch_size"]
    found = [f"{path}.batch_size"] if "batch_size" in names else []
    for name in names:
        inner = getattr(config, name)
        if isinstance(inner, Config) and name in config.identity():  # else it is switched off
            found += batch_settings(f"{path}.{name}", inner)
    return found
