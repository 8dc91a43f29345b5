"""Do reasonings tell the recommender anything? Real ones against those of other users."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalign.metrics import ndcg
from recalign.ranking import row_chunks, target_ranks
from recalign.recommender.examples import FitExamples
from recalign.recommender.model import KnowledgeRecommender
from recalign.recommender.required import MIN_DIFFERENCE, Figures, t_quantile

N_SHUFFLES = 5


@dataclass(frozen=True)
class Quality:
    """Means per user, float64 [U]: log-probability of the targets (nats), full-depth NDCG."""

    log_prob: np.ndarray
    ndcg: np.ndarray


def visible_scores(scores: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
    """`scores` [B, I+1] with -inf at seen items (unless the target [B]) and at column 0."""
    own = scores.gather(1, targets[:, None])
    visible = scores.scatter(1, seen, -torch.inf)
    visible[:, 0] = -torch.inf
    return visible.scatter_(1, targets[:, None], own)


@torch.no_grad()
def quality(model: KnowledgeRecommender, data: FitExamples, texts: Tensor | None) -> Quality:
    """How well the targets are ranked given each owner's texts [U, R, e]; None: without any."""
    states, targets, owners = data.states, data.targets, data.owners
    n_texts = 1 if texts is None else texts.shape[1]
    knowledge = None if texts is None else model.user_knowledge(texts)  # [U, R, h]
    items = model.item_knowledge()
    log_probs, gains = np.empty(len(states)), np.empty(len(states))
    for rows in row_chunks(len(states), n_texts * len(items)):
        scores = visible_scores(model.base_scores(states[rows]), targets[rows], data.seen(rows))
        scores = scores[:, None]
        if knowledge is not None:
            scores = scores + knowledge[owners[rows]] @ items.T
        chosen = targets[rows].repeat_interleave(n_texts)[:, None]
        scores = scores.flatten(0, 1)
        log_prob = scores.gather(1, chosen)[:, 0] - scores.logsumexp(1)
        ranks = target_ranks(scores, chosen, chosen.new_zeros(len(chosen), 1)).cpu()
        gain = ndcg(ranks, np.ones(len(ranks), dtype=np.int64), None)
        log_probs[rows] = log_prob.double().cpu().numpy().reshape(-1, n_texts).mean(1)
        gains[rows] = gain.reshape(-1, n_texts).mean(1)
    owner = owners.cpu().numpy()
    counts = np.bincount(owner)
    return Quality(
        np.bincount(owner, weights=log_probs) / counts, np.bincount(owner, weights=gains) / counts
    )


def shifted_orders(n_users: int, rng: np.random.Generator) -> np.ndarray:
    """For each of N_SHUFFLES shuffles, whose texts every user gets (never its own), [N, U]."""
    orders = np.empty((N_SHUFFLES, n_users), dtype=np.int64)
    for row in orders:
        circle = rng.permutation(n_users)
        row[circle] = np.roll(circle, 1)
    return orders


def compare(real: Quality, shuffled: list[Quality], none: Quality) -> Figures:
    """The guard's figures: means, and 95 % t intervals of real minus shuffled, paired by user."""
    figures: Figures = {"users": len(real.log_prob), "shuffles": len(shuffled)}
    for name, ours, theirs, bare in (
        ("log_prob", real.log_prob, [other.log_prob for other in shuffled], none.log_prob),
        ("ndcg", real.ndcg, [other.ndcg for other in shuffled], none.ndcg),
    ):
        others = np.mean(theirs, axis=0)
        mean, low, high = t_interval(ours - others)
        figures |= {
            f"{name}_real": float(ours.mean()),
            f"{name}_shuffled": float(others.mean()),
            f"{name}_no_text": float(bare.mean()),
            f"{name}_difference": mean,
            f"{name}_low": low,
            f"{name}_high": high,
        }
    difference = float(figures["log_prob_difference"])
    figures["signal"] = bool(figures["log_prob_low"] > 0 and difference >= MIN_DIFFERENCE)
    return figures


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t interval; infinite below two values."""
    n = len(values) - 1
    if n < 1:
        return float(values.mean()), -float("inf"), float("inf")
    half = t_quantile(n) * float(values.std(ddof=1)) / (n + 1) ** 0.5
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half
