"""A phase: its users, where their prompts end, and the items they are judged on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from recalign.errors import BadInputError
from recalign.sequences import Sequences

PhaseName = Literal["fit", "reward", "valid", "test"]
NEXT = {"fit": "reward_start", "reward": "valid_start", "valid": "test_start", "test": "end"}


@dataclass(frozen=True)
class Phase:
    """users [U]; everything before position starts [U] may be seen; targets end before ends [U]."""

    users: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def targets(self, sequences: Sequences) -> np.ndarray:
        """The items of each user's window in order of time, int64 [U, T], 0 padded."""
        return sequences.window(self.users, self.starts, self.ends - self.starts)

    def beside(self, others: "Phase") -> "Phase":
        """The users of both, these first."""
        pairs = ((self.users, others.users), (self.starts, others.starts), (self.ends, others.ends))
        return Phase(*(np.concatenate(pair) for pair in pairs))

    def first(self, n_targets: int) -> "Phase":
        """The same users and starts with at most this many targets each."""
        return Phase(self.users, self.starts, np.minimum(self.ends, self.starts + n_targets))

    def part(self, number: int, parts: int) -> "Phase":
        """Part `number`, from 1, of `parts` into which the users are dealt out in turn.

        Raises BadInputError if there are fewer users than parts.
        """
        if len(self.users) < parts:
            raise BadInputError(
                f"rounds.inner_rounds: {len(self.users)} users cannot be dealt out into {parts} "
                "parts; lower it"
            )
        own = slice(number - 1, None, parts)
        return Phase(self.users[own], self.starts[own], self.ends[own])


def phase_of(windows: pl.DataFrame, phase: PhaseName, *, prompted: bool = True) -> Phase:
    """The prompted users whose window of this phase is not empty, in order of user_index.

    prompted=False: the others (splits.others_fit), whom no LLM is asked about.
    """
    start, end = f"{phase}_start", NEXT[phase]
    wanted = (pl.col("prompted") == prompted) & (pl.col(start) < pl.col(end))
    kept = windows.filter(wanted).sort("user_index")
    users, starts, ends = (kept[c].to_numpy().astype(np.int64) for c in ("user_index", start, end))
    return Phase(users, starts, ends)


def oracle_validation(windows: pl.DataFrame) -> Phase:
    """What follows the oracle's training windows: the fit window, or, without one, validation.

    Reward targets stay unseen: without a fit window but with a reward window there is nothing
    to validate on.
    """
    fit = phase_of(windows, "fit")
    if len(fit.users) or len(phase_of(windows, "reward").users):
        return fit
    return phase_of(windows, "valid")
