"""What an LLM's training is told, and what it returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recalign.progress import Progress, silent

if TYPE_CHECKING:  # seconds to import
    from peft import PeftModel
    from transformers import PreTrainedModel, TrainerCallback


@dataclass(frozen=True)
class TrainingRun:
    """Where and how an LLM is trained, which changes nothing in what comes out."""

    stage: str
    """Whose settings messages name."""
    work: Path
    """Checkpoints; belongs to this run alone. A run that was interrupted continues from them;
    those of a training on other rows are deleted."""
    folder: Path
    """Gets the adapter, or all weights."""
    progress: Progress = silent
    device: str = "cpu"
    callbacks: "tuple[TrainerCallback, ...]" = ()
    report_to: str = "none"
    """Tracker of transformers' Trainer; its name there."""


@dataclass(frozen=True)
class Trained:
    """What a training returns."""

    model: "PreTrainedModel | PeftModel"
    """The model that was given, trained in place, best weights loaded."""
    figures: dict[str, Any]
    log: pl.DataFrame
    """One row per logged step."""
