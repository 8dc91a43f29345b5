"""Train from the last whole checkpoint to the end, and load the best one."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.artifacts.digests import write_atomically
from recalign.errors import UserError
from recalign.training.checkpoints import (
    best_step,
    checkpoints,
    finished,
    last_complete,
    log_history,
)

if TYPE_CHECKING:  # seconds to import
    from transformers import Trainer

logger = logging.getLogger(__name__)


def claim(work: Path, digest: str, stage: str) -> None:
    """Note in `work` whose checkpoints it holds; those of another training are deleted.

    The folder is this run's alone: another training is what it was before an update of a package
    changed how texts become tokens, say.
    """
    work.mkdir(parents=True, exist_ok=True)
    note = work / "run.txt"
    noted = note.read_text() if note.exists() else None
    if noted == digest:  # of an earlier try, or by process 0 of this launch
        return
    if noted is not None:
        logger.warning("%s starts anew: %s is of a training on other rows", stage, work)
        for checkpoint in checkpoints(work):
            shutil.rmtree(checkpoint)
        for scored in work.glob("*.npz"):  # log-probabilities of the other rows
            scored.unlink()
    write_atomically(note, digest)


def train_to_best(
    trainer: "Trainer", work: Path, patience: int, stage: str
) -> list[dict[str, Any]]:
    """Train from the last whole checkpoint, load the best one, return the log.

    A run that was killed between its last checkpoint and its end is not trained any further.
    """
    with trainer.args.main_process_first(local=False):  # it deletes torn ones
        last = last_complete(work)
    if last is None or not finished(last, patience):
        trainer.args.eval_on_start = last is None
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        with trainer.args.main_process_first(local=False):
            last = last_complete(work)
    if last is None:
        raise UserError(
            f"{stage} was stopped before its first evaluation ({work} has no checkpoint)"
        )
    history = log_history(last)
    trainer._load_from_checkpoint(str(work / f"checkpoint-{best_step(history)}"))
    return history
