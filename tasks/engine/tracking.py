"""What a stage did, for TensorBoard: settings and figures of every stage, and the Trainer's curves.

Off unless `runtime.report_to` says so. The Trainer of transformers knows further trackers by
itself; what it tells them is its own.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.artifacts.manifest import Manifest
from recalign.artifacts.roots import local_root
from recalign.config import Runtime
from recalign.errors import UserError
from tasks.engine.run_page import key_of

if TYPE_CHECKING:  # seconds to import
    from torch.utils.tensorboard.writer import SummaryWriter

FOLDER = ".tensorboard"  # below the root, a folder per run of a stage
TRAINERS = "TENSORBOARD_LOGGING_DIR"  # where the Trainer's callback looks

Track = Callable[[Manifest], None]


@contextmanager
def tracked(runtime: Runtime, label: str, fingerprint: str) -> Iterator[Track]:
    """Yields what is to be called with the stage's manifest once its figures are known.

    UserError where TensorBoard is asked for and not installed.
    """
    if runtime.report_to != "tensorboard":
        yield lambda manifest: None
        return
    folder = local_root(runtime.root) / FOLDER / f"{key_of(label)}-{fingerprint[:10]}"
    writer, before = _writer(folder), os.environ.get(TRAINERS)
    os.environ[TRAINERS] = str(folder)
    try:
        yield lambda manifest: _tell(writer, manifest)
    finally:
        writer.close()
        if before is None:
            del os.environ[TRAINERS]
        else:
            os.environ[TRAINERS] = before


def _writer(folder: Path) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        told = 'install the extra: pip install -e ".[tensorboard]" --constraint constraints.txt'
        raise UserError(f"runtime.report_to = tensorboard: {told}") from error
    return SummaryWriter(str(folder))


def _tell(writer: "SummaryWriter", manifest: Manifest) -> None:
    """Settings as a table, every figure that is a number as a scalar."""
    lines = [f"| {name} | {value} |" for name, value in manifest.config.items()]
    writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]))
    for name, value in manifest.figures.items():
        if isinstance(value, int | float):
            writer.add_scalar(f"figures/{name}", float(value))
