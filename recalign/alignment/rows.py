"""Preference pairs as token ids, and which of them are held out."""

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recalign.errors import BadInputError, FailedRoundError, UserError
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS, check_table
from recalign.seeding import derive_seed
from recalign.training.packing import PackedRow

logger = logging.getLogger(__name__)

MANY = 0.1  # share of the rows: where more are too long, it is said


@dataclass(frozen=True)
class PackedRows(ABC):
    """n rows that the policy reads, whatever is learned from them, in the order of their table."""

    users: np.ndarray
    """User of each row, int64 [n]."""
    prompts: list[list[int]]
    """Token ids."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of prompt and all completions, int64 [n]."""
        return np.array([self.packed(i).n_tokens for i in range(len(self))], np.int64)

    @property
    def digest(self) -> str:
        """Tells these prompts and completions, as token ids, from others."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            row = self.packed(i)
            digest.update(json.dumps([row.prompt, row.completions]).encode())
        return digest.hexdigest()

    @abstractmethod
    def packed(self, i: int) -> PackedRow:
        """Row i: the prompt, and its completions in a fixed order."""


@dataclass(frozen=True)
class Rows(PackedRows):
    """Pairs with K rejected completions each."""

    chosen: list[list[int]]
    rejected: list[list[list[int]]]
    """K lists of token ids per pair."""
    eps: np.ndarray
    """Smoothing: P(this rejected is really preferred), float64 [n, K]."""
    left_out: dict[str, int]
    """Pairs that are not among the n, by reason."""

    def packed(self, i: int) -> PackedRow:
        """Row i as the policy reads it, the chosen completion first."""
        return PackedRow(self.prompts[i], [self.chosen[i], *self.rejected[i]])

    def records(self, index: Iterable[int]) -> list[dict[str, Any]]:
        """The rows `index` as the collator takes them, under TRL's column names."""
        return [
            {
                "prompt_ids": self.prompts[i],
                "chosen_ids": self.chosen[i],
                "rejected_ids": self.rejected[i],
                "eps": self.eps[i].tolist(),
            }
            for i in index
        ]


def encode_pairs(completions: pl.DataFrame, policy: Policy, max_length: int) -> Rows:
    """Token ids of chosen and rejected of the COMPLETIONS table; rows are left out, never cut.

    A row is left out as `too_long` when its prompt and its longest completion exceed `max_length`
    tokens, as `same_tokens` when a rejected completion has the chosen one's tokens (nothing to
    learn there), and as `empty` when prompt or completion has no token; each is counted.
    Raises BadInputError for other columns, and for rows that differ in their number of rejected.
    """
    table = check_table(completions, COMPLETIONS, "completions")
    left_out = Counter(too_long=0, same_tokens=0, empty=0)
    users, prompts, chosen, rejected, eps = [], [], [], [], []
    for row in table.iter_rows(named=True):
        texts = row["completions"]
        prompt_ids = policy.encode_prompt(row["prompt"])
        chosen_ids = policy.encode_completion(texts[row["chosen"]])
        rejected_ids = [policy.encode_completion(texts[place]) for place in row["rejected"]]
        reason = unusable(prompt_ids, [chosen_ids, *rejected_ids], max_length)
        if reason is None and chosen_ids in rejected_ids:
            reason = "same_tokens"
        if reason:
            left_out[reason] += 1
            continue
        users.append(row["user_index"])
        prompts.append(prompt_ids)
        chosen.append(chosen_ids)
        rejected.append(rejected_ids)
        eps.append(row["smoothing"])
    if len({len(texts) for texts in rejected}) > 1:
        raise BadInputError("pairs: every pair needs the same number of rejected completions")
    n_rejected = max(map(len, rejected or table["rejected"].to_list()), default=0)
    smoothing = np.array(eps, np.float64).reshape(len(rejected), n_rejected)
    return Rows(np.array(users, np.int64), prompts, chosen, rejected, smoothing, dict(left_out))


def unusable(prompt: list[int], completions: list[list[int]], max_length: int) -> str | None:
    """Why no row can be made of these tokens; None when one can."""
    if not all([prompt, *completions]):
        return "empty"
    return "too_long" if len(prompt) + max(map(len, completions)) > max_length else None


def require_pairs(rows: Rows, max_length: int) -> None:
    """FailedRoundError, with the reasons of what is left out, for pairs of fewer than two users."""
    tell_too_long(len(rows), rows.left_out, max_length)
    if len(np.unique(rows.users)) < 2:  # one trains, one is held out
        raise FailedRoundError(
            f"alignment can learn from {len(rows)} pairs only, of fewer than two users (left out:"
            f" {reasons(rows.left_out)}): raise alignment.max_length (now {max_length} tokens)"
            " where they are too long, or make more pairs"
        )


def reasons(left_out: Mapping[str, int]) -> str:
    """How many rows are left out for which reason, in words."""
    return ", ".join(f"{reason}: {n}" for reason, n in left_out.items() if n) or "none"


def tell_too_long(n_rows: int, left_out: Mapping[str, int], max_length: int) -> None:
    """A warning where many rows are left out beside these n for their length."""
    n_long, total = left_out["too_long"], n_rows + sum(left_out.values())
    if n_long > MANY * total:
        logger.warning(
            "alignment.max_length: %d of %d prompts are left out, as they have more than %d tokens"
            " with their completions",
            n_long, total, max_length,
        )  # fmt: skip


def held_out(users: np.ndarray, share: float, seed: int) -> np.ndarray:
    """True [n] for the rows of held-out users: each user's own draw, whoever else is there.

    At least one user is held out and at least one is not; raises UserError for fewer than two.
    """
    distinct = np.unique(users)
    if len(distinct) < 2:
        raise UserError(
            f"alignment needs rows of two users or more (one to hold out), not {len(distinct)}"
        )
    draws = np.array([derive_seed(seed, "held_out", int(user)) / 2**63 for user in distinct])
    chosen = draws < share
    chosen[draws.argmin()] = True
    chosen[draws.argmax()] = False
    return chosen[np.searchsorted(distinct, users)]
