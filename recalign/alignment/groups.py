"""All completions of a prompt with their rewards, as token ids."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recalign.alignment.rows import PackedRows, unusable
from recalign.config import AlignmentConfig
from recalign.metrics import TIE
from recalign.policy import Policy
from recalign.schemas import COMPLETIONS, check_table
from recalign.training.packing import PackedRow


@dataclass(frozen=True)
class Groups(PackedRows):
    """Prompts with some completions each."""

    completions: list[list[list[int]]]
    """Token ids of each prompt's S completions; S differs."""
    rewards: list[list[float]]
    """Reward of each of them."""
    chosen: list[int]
    """Place of the best of them."""
    titles: bool
    """Whether they are titles, which have no reward but that of being taken."""
    left_out: dict[str, int]
    """Prompts that are not among the n, by reason."""

    def packed(self, i: int) -> PackedRow:
        """Row i as the policy reads it."""
        return PackedRow(self.prompts[i], self.completions[i])

    def records(self, index: Iterable[int]) -> list[dict[str, Any]]:
        """The rows `index` as the collator takes them."""
        return [
            {
                "prompt_ids": self.prompts[i],
                "completion_ids": self.completions[i],
                "rewards": self.rewards[i],
                "chosen": self.chosen[i],
            }
            for i in index
        ]


def encode_groups(completions: pl.DataFrame, policy: Policy, config: AlignmentConfig) -> Groups:
    """Token ids of the COMPLETIONS table's completions, for the optimiser that the config names.

    best_of_n keeps the chosen completion alone, the others keep all. Titles have no reward of
    their own: the item taken has 1, every other 0. A prompt is left out, and counted, as `empty`
    or `too_long` like a pair, as `equal_rewards` when there is nothing to prefer, and by
    best_of_n as `small_advantage` when the best earns too little more than the mean.
    Raises BadInputError for other columns.
    """
    left_out = Counter(too_long=0, empty=0, equal_rewards=0)
    table = check_table(completions, COMPLETIONS, "completions")
    titles = table["rewards"].null_count() > 0
    users, prompts, texts, rewards, chosen = [], [], [], [], []
    for row in table.iter_rows(named=True):
        best, given = row["chosen"], row["completions"]
        earned = row["rewards"] or [float(place == best) for place in range(len(given))]
        if config.optimiser == "best_of_n":
            reason = _unearned(earned, best, config.min_advantage)
            given, earned, best = [given[best]], [earned[best]], 0
        else:
            reason = None if max(earned) - min(earned) > TIE else "equal_rewards"
            earned = tied(earned)
        prompt_ids = policy.encode_prompt(row["prompt"])
        completion_ids = [policy.encode_completion(text) for text in given]
        reason = reason or unusable(prompt_ids, completion_ids, config.max_length)
        if reason:
            left_out[reason] += 1
            continue
        users.append(row["user_index"])
        prompts.append(prompt_ids)
        texts.append(completion_ids)
        rewards.append(earned)
        chosen.append(best)
    return Groups(
        np.array(users, np.int64), prompts, texts, rewards, chosen, titles, dict(left_out)
    )


def tied(rewards: list[float]) -> list[float]:
    """These rewards, all that lie within TIE of a lower one equal to it: rounding ranks nothing."""
    told, floor = list(rewards), -np.inf
    for place in sorted(range(len(rewards)), key=rewards.__getitem__):
        floor = floor if rewards[place] - floor <= TIE else rewards[place]
        told[place] = floor
    return told


def _unearned(rewards: list[float], chosen: int, min_advantage: float) -> str | None:
    """Why the best of these is not imitated; None when it is."""
    advantage = rewards[chosen] - float(np.mean(rewards))
    return None if advantage > min_advantage else "small_advantage"


def by_rank(log_probs: list[float], chosen: int) -> list[float]:
    """Rewards of titles, of their log-probabilities: 1 for the chosen; the others share -1.

    A title's share falls with its rank k by likelihood as 1 / log2(1 + k): what the policy wrongly
    finds probable loses most. MiniOneRec's rule and rank rewards (2510.24431), added up.
    """
    ranks = (-np.array(log_probs)).argsort(kind="stable").argsort() + 1
    weights = 1 / np.log2(1 + ranks)
    weights[chosen] = 0
    rewards = -weights / weights.sum()
    rewards[chosen] = 1
    return rewards.tolist()
