"""Fit a recommender that reads texts: epochs, early stop, and how much the texts tell it.

The knowledge term beside a frozen sequence model learns by a full softmax over the fit window.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from recalign.config import RecommenderConfig
from recalign.errors import FailedRoundError
from recalign.progress import Progress, silent
from recalign.recommender.examples import FitExamples, ItemVectors, TextExamples
from recalign.recommender.knowledge import parameter_groups
from recalign.recommender.model import KnowledgeRecommender, start_model
from recalign.recommender.signal import (
    Figures,
    Quality,
    compare,
    quality,
    shifted_orders,
    visible_scores,
)
from recalign.seeding import derive_seed, stream

PATIENCE = 3
MIN_USERS = 10
MAX_HELD_OUT = 1000
"""More held-out users would cost time and show nothing more."""
CURVE = {
    "epoch": pl.Int32,  # 0: before any step
    "loss": pl.Float64,  # nats
    "held_out_log_prob": pl.Float64,  # nats
    "seconds": pl.Float64,
}


@dataclass(frozen=True)
class Learning:
    """How a kind of recommender learns from a text, and how it is judged.

    loss: model, examples, rows [B] and a text vector for each [B, e] -> mean loss; quality: model,
    examples and each user's texts [U, R, e], or None for the model without any.
    """

    loss: Callable[[Any, Any, Tensor, Tensor], Tensor]
    quality: Callable[[Any, Any, Tensor | None], Quality]
    optimiser: Callable[[RecommenderConfig, Any], torch.optim.Optimizer]


@dataclass(frozen=True)
class FittedRecommender:
    """The model with the best held-out log-probability, and how it came about.

    curve: see CURVE; figures: see `signal.compare`, on held-out users, each scored by the epoch
    that other users chose.
    """

    model: Any
    curve: pl.DataFrame
    figures: Figures


@dataclass
class Best:
    """The weights with the highest mean log-probability over some held-out users so far."""

    value: float = -np.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, value: float, model: nn.Module) -> bool:
        """Keep the model's weights if they are better; returns whether they are."""
        if value > self.value:
            self.value = value
            self.weights = {name: part.clone() for name, part in model.named_parameters()}
            return True
        return False

    def restore(self, model: nn.Module) -> None:
        """Put the kept weights into the model, for scoring."""
        model.load_state_dict(self.weights, strict=False)
        model.eval()


@dataclass
class Choice:
    """The best epoch as judged by every other held-out user, by the rest, and by all of them.

    An epoch picked for its luck on some users would flatter the guard's figures on them, so each
    half is scored by the epoch that the other half chose.
    """

    even: Best = field(default_factory=Best)
    odd: Best = field(default_factory=Best)
    everyone: Best = field(default_factory=Best)

    def offer(self, per_user: np.ndarray, model: nn.Module) -> bool:
        """Consider this epoch; whether it is the best one over all held-out users."""
        self.even.offer(float(per_user[::2].mean()), model)
        self.odd.offer(float(per_user[1::2].mean()), model)
        return self.everyone.offer(float(per_user.mean()), model)


def fit_recommender(
    config: RecommenderConfig,
    examples: FitExamples,
    items: ItemVectors,
    progress: Progress = silent,
    judged: np.ndarray | None = None,
) -> FittedRecommender:
    """Fit `KnowledgeRecommender` on the examples' device and measure whether it reads the texts.

    In an epoch every example meets one random text of its user. Of the users `judged` (None: all)
    some are held out by config.held_out, by a draw of their own per user index. FailedRoundError
    below MIN_USERS users.
    """
    held_out, fitted = split_users(config, examples.users, judged)
    train, test = examples.of_users(fitted), examples.of_users(held_out)
    model = start_model(config, items, train.all_texts().cpu()).to(examples.states.device)
    curve, choice = train_epochs(config, model, train, test, KNOWLEDGE, progress)
    figures = guard_figures(config, model, test, choice, KNOWLEDGE)
    choice.everyone.restore(model)
    return FittedRecommender(model, curve, figures | {"gate": model.gate.item()})


def train_epochs(
    config: RecommenderConfig,
    model: nn.Module,
    train: TextExamples,
    test: TextExamples,
    learning: Learning,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, Choice]:
    """Train `model` in place until `test` gets no better; the curve and the best weights."""
    n_steps = config.epochs * -(-len(train.owners) // config.batch_size)
    optimiser = learning.optimiser(config, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0, 1 - step / n_steps))
    choice, waited, rows = Choice(), 0, []
    for epoch in range(config.epochs + 1):
        started = time.perf_counter()
        loss = None
        if epoch:
            loss = _train_epoch(config, model, train, epoch, learning.loss, optimiser, schedule)
        model.eval()
        per_user = learning.quality(model, test, test.grid()).log_prob
        waited = 0 if choice.offer(per_user, model) else waited + 1
        rows.append((epoch, loss, float(per_user.mean()), time.perf_counter() - started))
        progress(epoch, config.epochs, f"held-out log-probability {per_user.mean():.4f}")
        if waited == PATIENCE:
            break
    return pl.DataFrame(rows, CURVE, orient="row"), choice


def guard_figures(
    config: RecommenderConfig,
    model: nn.Module,
    test: TextExamples,
    choice: Choice,
    learning: Learning,
) -> Figures:
    """Real against shuffled texts, and without any; see `cross_chosen`."""
    grid = test.grid()
    orders = shifted_orders(len(grid), stream(config.seed, "recommender", "shuffles"))
    shuffled = [grid[torch.from_numpy(order).to(grid.device)] for order in orders]
    real, *others, none = cross_chosen(model, test, choice, learning, [grid, *shuffled, None])
    return compare(real, others, none)


def cross_chosen(
    model: nn.Module,
    test: TextExamples,
    choice: Choice,
    learning: Learning,
    variants: list[Tensor | None],
) -> list[Quality]:
    """Quality given each of the texts [U, R, e], every user by the weights the other half chose.

    Users of even rows come first, then those of odd ones.
    """
    n_users, parts = len(test.counts), []
    for half, best in ((0, choice.odd), (1, choice.even)):
        best.restore(model)
        part = test.of_users(np.arange(half, n_users, 2))
        texts = [None if variant is None else variant[half::2] for variant in variants]
        parts.append([learning.quality(model, part, vectors) for vectors in texts])
    return [
        Quality(
            np.concatenate([even.log_prob, odd.log_prob]), np.concatenate([even.ndcg, odd.ndcg])
        )
        for even, odd in zip(*parts, strict=True)
    ]


def split_users(
    config: RecommenderConfig, users: np.ndarray, judged: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of held-out and of fitted users; a user's draw depends on no other user.

    Only users `judged` are held out; None: all may be.
    """
    may = np.ones(len(users), dtype=bool) if judged is None else np.isin(users, judged)
    if may.sum() < MIN_USERS:
        raise FailedRoundError(
            f"the recommender needs at least {MIN_USERS} users with a fit window and a usable text,"
            f" there are {may.sum()}: raise splits.max_users where it is set, look at the texts of"
            " the fit window, or use more data or shorter splits"
        )
    keys = np.array([derive_seed(config.seed, "held-out", int(user)) for user in users])
    n_held_out = min(max(4, round(config.held_out * may.sum())), MAX_HELD_OUT)
    order = np.argsort(keys)
    order = np.concatenate([order[may[order]], order[~may[order]]])
    return order[:n_held_out], np.sort(order[n_held_out:])


def _train_epoch(
    config: RecommenderConfig,
    model: nn.Module,
    data: TextExamples,
    epoch: int,
    loss_of: Callable[[Any, Any, Tensor, Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """One pass: each example with one random text of its user; the mean loss in nats."""
    device = data.owners.device
    rng = stream(config.seed, "recommender", "epoch", epoch)
    order = torch.from_numpy(rng.permutation(len(data.owners))).to(device)
    draws = torch.from_numpy(rng.random(len(order))).to(device)
    total = 0.0
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(config.seed, "recommender", "dropout", epoch))
        for rows in order.split(config.batch_size):
            loss = loss_of(model, data, rows, data.drawn(rows, draws[rows]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
    return total / len(order)


def _loss(model: KnowledgeRecommender, data: FitExamples, rows: Tensor, texts: Tensor) -> Tensor:
    """Cross-entropy of the targets among the items that may be shown."""
    targets = data.targets[rows]
    base = visible_scores(model.base_scores(data.states[rows]), targets, data.seen(rows))
    scores = base + model.user_knowledge(texts) @ model.item_knowledge().T
    return torch.nn.functional.cross_entropy(scores, targets)


def _optimiser(config: RecommenderConfig, model: KnowledgeRecommender) -> torch.optim.Optimizer:
    groups = parameter_groups(model, config.learning_rate)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


KNOWLEDGE = Learning(_loss, quality, _optimiser)
"""The knowledge term beside a frozen sequence model."""
