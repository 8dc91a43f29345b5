"""What a stage did, for TensorBoard or MLflow: its settings and figures, and the Trainer's curves.

Off unless `runtime.report_to` says so. The Trainer of transformers knows further trackers by
itself; what it tells them is its own.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.artifacts.manifest import Manifest
from recalign.artifacts.roots import local_root
from recalign.config import Runtime
from recalign.errors import UserError, install
from tasks.engine.run_page import key_of

if TYPE_CHECKING:  # seconds to import
    from torch.utils.tensorboard.writer import SummaryWriter

TENSORBOARD = ".tensorboard"  # below the root, a folder per run of a stage
TRAINERS = "TENSORBOARD_LOGGING_DIR"  # where the Trainer's callback looks
MLFLOW = ".mlflow"  # below the root, a database for all runs, unless MLFLOW_TRACKING_URI is set
EXPERIMENT = "recalign"  # unless MLFLOW_EXPERIMENT_NAME is set

Track = Callable[[Manifest], None]


@contextmanager
def tracked(runtime: Runtime, label: str, fingerprint: str) -> Iterator[Track]:
    """Yields what is to be called with the stage's manifest once its figures are known.

    UserError where the tracker is asked for and not installed.
    """
    root, name = local_root(runtime.root), f"{key_of(label)}-{fingerprint[:10]}"
    match runtime.report_to:
        case "tensorboard":
            with _tensorboard(root / TENSORBOARD / name) as track:
                yield track
        case "mlflow":
            with _mlflow(root / MLFLOW, name) as track:
                yield track
        case "wandb" if importlib.util.find_spec("wandb") is None:
            raise UserError("runtime.report_to = wandb: install it: pip install wandb")
        case _:
            yield lambda manifest: None


@contextmanager
def _mlflow(folder: Path, name: str) -> Iterator[Track]:
    """A run of MLflow around the stage; a Trainer in this process tells the same one."""
    try:
        import mlflow
    except ImportError as error:
        raise _missing("mlflow") from error
    before = os.environ.get("MLFLOW_TRACKING_URI")
    if not before:
        folder.mkdir(parents=True, exist_ok=True)

    def tell(manifest: Manifest) -> None:
        settings = {f"settings.{name}": value for name, value in manifest.config.items()}
        mlflow.log_params(settings)  # a Trainer's parameters have names without a prefix
        mlflow.log_metrics({f"figures.{name}": value for name, value in _numbers(manifest)})

    try:  # MLflow puts both into the environment, where processes that the stage starts see them
        mlflow.set_tracking_uri(before or f"sqlite:///{folder.resolve()}/mlflow.db")
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        with mlflow.start_run(run_name=name):
            yield tell
    finally:
        # None takes it back: another stage may have another root.
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Track]:
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
        raise _missing("tensorboard") from error
    return SummaryWriter(str(folder))


def _tell(writer: "SummaryWriter", manifest: Manifest) -> None:
    """Settings as a table, every figure that is a number as a scalar."""
    lines = [f"| {name} | {value} |" for name, value in manifest.config.items()]
    writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]))
    for name, value in _numbers(manifest):
        writer.add_scalar(f"figures/{name}", value)


def _numbers(manifest: Manifest) -> Iterator[tuple[str, float]]:
    """The figures that are numbers."""
    for name, value in manifest.figures.items():
        if isinstance(value, int | float):
            yield name, float(value)


def _missing(extra: str) -> UserError:
    return UserError(f"runtime.report_to = {extra}: {install(extra)}")
