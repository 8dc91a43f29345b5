"""The reward of every sample in KAR's protocol: how the user's lists are re-ranked given it."""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.config import RewardsConfig
from recalign.lists import Lists
from recalign.progress import Progress, silent
from recalign.ranking import row_chunks
from recalign.rewards.score import SampledTexts, reward_columns, rewards_table

ScoreLists = Callable[[slice, Tensor], Tensor]
"""(lists, text vectors [B, S, e]) -> scores [B, S, L]."""


def score_lists(
    read: ScoreLists,
    users: np.ndarray,
    lists: Lists,
    texts: SampledTexts,
    config: RewardsConfig,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The REWARDS table: one row per (user, sample), in the order of the users and of the slots.

    users [U] user indices, of texts and, by place, of lists. The rewards of a list are those of
    `reward_columns` with the list as the catalogue; a sample has the mean over the user's lists, in
    which a list without a positive item counts 0, as in KAR (a user without any other: all 0).
    """
    length = lists.items.shape[1]
    targets, counts = lists.targets(), np.maximum(lists.counts(len(users)), 1)
    vectors = torch.from_numpy(texts.vectors)
    totals: dict[str, np.ndarray] = {}
    for rows in row_chunks(len(lists), texts.rows.shape[1] * (length + vectors.shape[1])):
        owners = lists.owners[rows]
        scores = read(rows, vectors[np.maximum(texts.rows[owners], 0)])
        wanted = torch.from_numpy(targets[rows]).to(scores.device)
        padded = torch.nn.functional.pad(scores, (1, 0))
        columns = reward_columns(padded, wanted, wanted.new_zeros(len(wanted), 1), config)
        for name, values in columns.items():
            total = totals.setdefault(name, np.zeros(texts.rows.shape))
            np.add.at(total, owners, np.nan_to_num(values, nan=0.0))
        progress(rows.stop, len(lists), "lists")
    means = {name: total / counts[:, None] for name, total in totals.items()}
    return rewards_table(users, texts, means)
