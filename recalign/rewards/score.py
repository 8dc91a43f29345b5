"""The reward of every sample: how the recommender ranks the user's later items given that text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.config import RewardsConfig
from recalign.metrics import hit_rate, mean_average_precision, ndcg
from recalign.progress import Progress, silent
from recalign.ranking import row_chunks, target_ranks
from recalign.schemas import REWARDS, check_table
from recalign.sequences import Before

ScoreItems = Callable[[Tensor, Tensor], Tensor]
"""(states [B, d], text vectors [B, S, e]) -> scores [B, S, I+1]."""


@dataclass(frozen=True)
class SampledTexts:
    """The texts of some users of the reward phase, as vectors.

    places [U]: the users' places in the phase; vectors float32 [T, e]; rows int64 [U, S] of
    vectors, -1 where a user has fewer texts; samples int16 [U, S]: their numbers.
    """

    places: np.ndarray
    vectors: np.ndarray
    rows: np.ndarray
    samples: np.ndarray

    def of(self, users: slice) -> "SampledTexts":
        """The texts of these users alone, with their vectors alone."""
        rows = self.rows[users]
        used, renumbered = np.unique(rows[rows >= 0], return_inverse=True)
        own = np.full_like(rows, -1)
        own[rows >= 0] = renumbered
        return SampledTexts(self.places[users], self.vectors[used], own, self.samples[users])


@dataclass(frozen=True)
class RewardWindow:
    """The users whose texts are scored, and what a text has to put first.

    users [U]: user indices; states [U, d]: each user's state, on the device where scoring runs;
    targets [U, H]: the items of the reward window, 0 padded; seen [U, L]: items before it, 0
    padded; n_items in the catalogue.
    """

    users: np.ndarray
    states: Tensor
    targets: np.ndarray
    seen: np.ndarray | Before
    n_items: int


def score_rewards(
    scores: ScoreItems,
    window: RewardWindow,
    texts: SampledTexts,
    config: RewardsConfig,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The REWARDS table: one row per (user, sample), in the order of the users and of the slots.

    window and texts are of the same users in the same order.

    Ranks are over the whole catalogue without seen items (targets always rank), ties against the
    target. ndcg_full = sum over targets of 1/log2(1 + rank), over the ideal sum; ndcg_at_k the same
    up to rank k; map_at_k = average precision at k; hr_at_k = 1 where any target is within
    rank k, else 0; log_prob = mean over targets of the log softmax over the ranked items, nats.
    Batches are of whole users and bounded in memory. ValueError: a user without targets.
    """
    if not (window.targets > 0).any(1).all():
        raise ValueError("every user needs at least one target in the reward window")
    states, n_users = window.states, len(window.users)
    device = states.device
    vectors = torch.from_numpy(texts.vectors).to(device, states.dtype)
    parts = []
    for rows in row_chunks(n_users, texts.rows.shape[1] * (window.n_items + 1)):
        slots = torch.from_numpy(np.maximum(texts.rows[rows], 0)).to(device)
        parts.append(
            reward_columns(
                scores(states[rows], vectors[slots]),
                torch.from_numpy(window.targets[rows]).long().to(device),
                torch.from_numpy(window.seen[rows]).long().to(device),
                config,
            )
        )
        progress(rows.stop, n_users, "users")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return rewards_table(window.users, texts, columns)


def rewards_table(
    users: np.ndarray, texts: SampledTexts, columns: dict[str, np.ndarray]
) -> pl.DataFrame:
    """REWARDS of the texts there are, from values float64 [U, S] for every slot."""
    kept = texts.rows >= 0
    table = pl.DataFrame(
        {
            "user_index": np.repeat(users, kept.sum(1)).astype(np.int32),
            "sample": texts.samples[kept].astype(np.int16),
            **{name: values[kept] for name, values in columns.items()},
        }
    )
    return check_table(table, REWARDS, "rewards")


@torch.no_grad()
def reward_columns(
    scores: Tensor, targets: Tensor, seen: Tensor, config: RewardsConfig
) -> dict[str, np.ndarray]:
    """The three rewards that are kept, and `reward`, the one that counts; float64 [B, S].

    scores [B, S, I+1], targets [B, H], seen [B, L].
    """
    n_users, n_samples = scores.shape[:2]
    # Adding is ten times as fast as masked_fill; what is hidden scores -inf from here on, and
    # nothing is left for target_ranks to mask.
    flat = (scores + _curtain(targets, seen, scores)[:, None]).flatten(0, 1)
    wanted = targets.repeat_interleave(n_samples, 0)
    ranks = target_ranks(flat, wanted, wanted.new_zeros(len(wanted), 1))
    counted = ranks > 0  # a target that is repeated counts once
    n_targets = counted.sum(1)
    own = flat.gather(1, wanted).double() - flat.logsumexp(1, keepdim=True).double()
    log_prob = torch.where(counted, own, 0.0).sum(1) / n_targets
    ranks_, n_targets_ = ranks.cpu().numpy(), n_targets.cpu().numpy()
    values = {
        "ndcg_at_k": ndcg(ranks_, n_targets_, config.k),
        "ndcg_full": ndcg(ranks_, n_targets_, None),
        "log_prob": log_prob.cpu().numpy(),
    }
    match config.reward:
        case "map_at_k":
            values["reward"] = mean_average_precision(ranks_, n_targets_, config.k)
        case "hr_at_k":
            values["reward"] = hit_rate(ranks_, n_targets_, config.k)
        case kept:
            values["reward"] = values[kept]
    return {name: value.reshape(n_users, n_samples) for name, value in values.items()}


def _curtain(targets: Tensor, seen: Tensor, scores: Tensor) -> Tensor:
    """-inf at seen items that are no target and at the padding item, else 0: [B, I+1]."""
    curtain = scores.new_zeros(len(seen), scores.shape[2])
    curtain.scatter_(1, seen, -torch.inf)
    curtain.scatter_(1, targets, 0.0)
    curtain[:, 0] = -torch.inf
    return curtain
