"""Train from the last whole checkpoint to the end, and load the best one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.errors import UserError
from recalign.training.checkpoints import best_step, finished, last_complete, log_history

if TYPE_CHECKING:  # seconds to import
    from transformers import Trainer


def claim(work: Path, digest: str, stage: str) -> None:
    """Note in `work` whose checkpoints it holds; UserError when they are another run's."""
    work.mkdir(parents=True, exist_ok=True)
    note = work / "run.txt"
    if note.exists() and note.read_text() != digest:
        raise UserError(f"{work} holds the checkpoints of another {stage}: give an empty folder")
    draft = work / "run.draft"
    draft.write_text(digest)
    os.replace(draft, note)


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
