"""Which checkpoints of an interrupted run are whole, and which of them is the best."""

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

MARK = "complete.json"
STATE = "trainer_state.json"


def step_of(checkpoint: Path) -> int:
    """12 of `checkpoint-12`."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints(work: Path) -> list[Path]:
    """All checkpoint folders in `work`, whole or torn, by step."""
    found = [
        path for path in work.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=step_of)


def mark_complete(checkpoint: Path) -> None:
    """Flush every file to disk, then write their sizes as the last file, in one rename."""
    sizes = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != MARK:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[str(path.relative_to(checkpoint))] = path.stat().st_size
    draft = checkpoint / (MARK + ".draft")
    draft.write_text(json.dumps(sizes))
    os.replace(draft, checkpoint / MARK)


def is_complete(checkpoint: Path) -> bool:
    """Whether every file named in the mark is there in full."""
    try:
        sizes = json.loads((checkpoint / MARK).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def last_complete(work: Path) -> Path | None:
    """The newest whole checkpoint; torn ones are deleted."""
    whole = None
    for checkpoint in checkpoints(work):
        if is_complete(checkpoint):
            whole = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return whole


def prune(work: Path, keep: set[int]) -> None:
    """Delete the checkpoints of all steps but `keep`."""
    for checkpoint in checkpoints(work):
        if step_of(checkpoint) not in keep:
            shutil.rmtree(checkpoint)


def log_history(checkpoint: Path) -> list[dict[str, Any]]:
    """The Trainer's log up to this checkpoint."""
    return json.loads((checkpoint / STATE).read_text())["log_history"]


def held_out_losses(history: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, loss) of every evaluation after the start, in order."""
    return [(e["step"], e["eval_loss"]) for e in history if "eval_loss" in e and e["step"] > 0]


def best_step(history: list[dict[str, Any]]) -> int:
    """The step of the lowest held-out loss, the earliest of equal ones; 0 before there is one."""
    return min(held_out_losses(history), key=lambda pair: pair[1], default=(0, math.inf))[0]


def out_of_patience(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether the last `patience` evaluations did not lower the held-out loss."""
    losses = held_out_losses(history)
    return bool(losses) and sum(step > best_step(history) for step, _ in losses) >= patience


def finished(checkpoint: Path, patience: int) -> bool:
    """Whether the run that wrote this checkpoint had nothing left to do."""
    state = json.loads((checkpoint / STATE).read_text())
    return state["global_step"] >= state["max_steps"] or out_of_patience(
        state["log_history"], patience
    )
