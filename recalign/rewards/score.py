"""The reward of every sample: how the recommender ranks the user's later items given that text."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.config import RewardsConfig
from recalign.metrics import ndcg
from recalign.progress import Progress, silent
from recalign.ranking import target_ranks
from recalign.schemas import REWARDS, check_table

CHUNK_ELEMENTS = 1 << 20
"""Scores in memory at once; more only falls out of the cache."""

Scores = Callable[[Tensor, Tensor], Tensor]
"""(states [B, d], text vectors [B, S, e]) -> scores [B, S, I+1]."""


def score_rewards(
    scores: Scores,
    states: Tensor,
    text_vectors: np.ndarray,
    text_rows: np.ndarray,
    samples: np.ndarray,
    users: np.ndarray,
    targets: np.ndarray,
    seen: np.ndarray,
    config: RewardsConfig,
    *,
    n_items: int,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The REWARDS table: one row per (user, sample), in the order of `users` and of the slots.

    states [U, d]: each user's state, computed once, on the device where scoring runs;
    text_vectors [T, e] and text_rows int64 [U, S]: the row of each sample's text, -1 where a user
    has fewer; samples [U, S]: their numbers; users [U]: user indices; targets [U, H]: the items of
    the reward window, 0 padded; seen [U, L]: items before it, 0 padded.

    Ranks are over the whole catalogue without seen items (targets always rank), ties against the
    target. ndcg_full = sum over targets of 1/log2(1 + rank), over the ideal sum; ndcg_at_k the same
    up to rank k; log_prob = mean over targets of the log softmax over the ranked items, nats.
    Batches are of whole users and bounded in memory. ValueError: a user without targets.
    """
    if not (targets > 0).any(1).all():
        raise ValueError("every user needs at least one target in the reward window")
    device = states.device
    vectors = torch.from_numpy(text_vectors).to(device, states.dtype)
    kept = text_rows >= 0
    parts = []
    for rows in _user_chunks(len(users), text_rows.shape[1] * (n_items + 1)):
        slots = torch.from_numpy(np.maximum(text_rows[rows], 0)).to(device)
        parts.append(
            reward_columns(
                scores(states[rows], vectors[slots]),
                torch.from_numpy(targets[rows]).long().to(device),
                torch.from_numpy(seen[rows]).long().to(device),
                config.k,
            )
        )
        progress(rows.stop, len(users), "users")
    columns = {name: np.concatenate([part[name] for part in parts])[kept] for name in parts[0]}
    table = pl.DataFrame(
        {
            "user_index": np.repeat(users, kept.sum(1)).astype(np.int32),
            "sample": samples[kept].astype(np.int16),
            **columns,
            "reward": columns[config.reward],
        }
    )
    return check_table(table, REWARDS, "rewards")


@torch.no_grad()
def reward_columns(scores: Tensor, targets: Tensor, seen: Tensor, k: int) -> dict[str, np.ndarray]:
    """The three rewards, float64 [B, S], of scores [B, S, I+1], targets [B, H] and seen [B, L]."""
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
        "ndcg_at_k": ndcg(ranks_, n_targets_, k),
        "ndcg_full": ndcg(ranks_, n_targets_, None),
        "log_prob": log_prob.cpu().numpy(),
    }
    return {name: value.reshape(n_users, n_samples) for name, value in values.items()}


def _curtain(targets: Tensor, seen: Tensor, scores: Tensor) -> Tensor:
    """-inf at seen items that are no target and at the padding item, else 0: [B, I+1]."""
    curtain = scores.new_zeros(len(seen), scores.shape[2])
    curtain.scatter_(1, seen, -torch.inf)
    curtain.scatter_(1, targets, 0.0)
    curtain[:, 0] = -torch.inf
    return curtain


def _user_chunks(n_users: int, elements_per_user: int) -> Iterator[slice]:
    """Slices of users whose scores fit into CHUNK_ELEMENTS (at least one user)."""
    step = max(1, CHUNK_ELEMENTS // max(1, elements_per_user))
    for start in range(0, n_users, step):
        yield slice(start, min(start + step, n_users))
