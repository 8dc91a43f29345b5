"""One pair in the making, and what all pairs draw from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from recalign.config import Strategy
from recalign.sequences import Sequences

TOO_FEW = "too few items to reject"

Render = Callable[[Sequence[int], Sequence[int]], str]
"""Prompt text of a history and of candidates (none in the history format)."""
ScoreTitles = Callable[[list[str], np.ndarray | None], np.ndarray]
"""Log-probabilities [B, P] of the items [B, P] (0 padded) after B prompts; None: [B, I+1], all."""


@dataclass(frozen=True)
class Sources:
    """What all pairs draw from."""

    sequences: Sequences
    popularity: np.ndarray
    """Interactions in history windows, int64 [I+1]."""
    vectors: np.ndarray
    """Item texts as unit vectors, float32 [I+1, e]."""
    render: Render
    score: ScoreTitles | None = None
    """The SFT model; None where no strategy asks it."""


@dataclass(frozen=True)
class Picked:
    """Items that a strategy rejects, best first, and the scores [I+1] that are kept with them."""

    items: np.ndarray
    scores: np.ndarray
    left_out: str | None = None
    """Why the pair cannot be used after all."""


@dataclass
class PairDraft:
    """One pair in the making."""

    user: int
    position: int
    first: int
    history: np.ndarray
    chosen: int
    seed: int
    draws: np.random.Generator
    free: np.ndarray
    """Items that may still be rejected, bool [I+1]."""
    slots: dict[Strategy, int]
    """How many items each strategy rejects."""
    log_probs: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """The SFT model's of every item, float64 [I+1]; empty until it is asked."""
    chosen_score: float | None = None
    candidates: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rejected: list[int] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    left_out: str | None = None

    def reject(self, strategy: Strategy, picked: Picked) -> None:
        """Keep these items and their scores; too few of them leave the pair out."""
        if len(picked.items) < self.slots[strategy]:
            self.left_out = self.left_out or TOO_FEW
        self.left_out = self.left_out or picked.left_out
        self.rejected += picked.items.tolist()
        self.strategies += [strategy] * len(picked.items)
        self.scores += picked.scores[picked.items].astype(np.float64).tolist()
        self.free[picked.items] = False
