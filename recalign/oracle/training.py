"""One run of optimisation: the weights, their average, the optimiser, and an epoch over them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recalign.config.oracle import OracleConfig
from recalign.oracle.batches import Batch, Windows, n_batches, shuffled_batches
from recalign.oracle.dropout import DropoutMasks
from recalign.oracle.fused import product_dtype
from recalign.oracle.losses import bce, full_softmax, gbce, sampled_softmax
from recalign.oracle.sasrec import SASRec
from recalign.seeding import derive_seed, stream
from recalign.sequences import Sequences

SAMPLING_ALPHA = 0.75  # negatives of the sampled softmax are drawn by popularity to this power


class Training:
    """Everything that changes while the oracle is fitted, with its state for a checkpoint.

    All randomness of epoch e comes from streams named by (seed, e): a checkpoint needs no
    generator states, and a resumed run repeats the undisturbed one.
    """

    def __init__(
        self, model: SASRec, sequences: Sequences, windows: Windows, popularity: Tensor
    ) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self._config: OracleConfig = model.config
        self._sequences = sequences
        self._windows = windows
        self._shares = popularity**SAMPLING_ALPHA / (popularity**SAMPLING_ALPHA).sum()
        expected = self._shares * model.config.n_negatives
        self._log_expected = expected.log().float().to(model.items.device)
        self._device = model.items.device
        self._dtype = product_dtype(self._device)
        self._step = 0
        self.steps_per_epoch = n_batches(windows, self._config.batch_users)
        self._optimiser = torch.optim.AdamW(
            model.parameters(),
            lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )

    def run_epoch(self, epoch: int, told: Callable[[int, float], None]) -> float:
        """One pass over all windows; mean loss per target. `told(step, loss)` hears each step."""
        seed = self._config.seed
        rate = self._config.dropout
        masks = DropoutMasks(rate, seed, epoch, self._device) if rate else None
        draws = torch.Generator().manual_seed(derive_seed(seed, "negatives", epoch))
        order = stream(seed, "batches", epoch)
        total, n_targets = 0.0, 0
        batches = shuffled_batches(self._sequences, self._windows, self._config.batch_users, order)
        for batch in batches:
            loss = self._learn(batch, masks, draws)
            total += loss * len(batch.targets)
            n_targets += len(batch.targets)
            told(self._step, loss)
        return total / n_targets

    def _learn(self, batch: Batch, masks: DropoutMasks | None, draws: torch.Generator) -> float:
        """One optimiser step; the batch's mean loss."""
        self._set_learning_rate()
        matrix, bias = self.model.item_matrix(), self.model.item_bias()
        states = self.model.all_states(batch.histories.to(self._device), matrix, masks)
        real = states.flatten(0, 1).index_select(0, batch.places.to(self._device))
        loss = self._loss(real, matrix, bias, batch.targets.to(self._device), draws)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._optimiser.step()
        self._step += 1
        self._update_average()
        return loss.item()

    def _loss(
        self, states: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, draws: torch.Generator
    ) -> Tensor:
        n = self._config.n_negatives
        match self._config.loss:
            case "full":
                return full_softmax(states, matrix, bias, targets, self._dtype)
            case "sampled":
                drawn = torch.multinomial(self._shares, n, replacement=True, generator=draws)
                drawn = drawn.to(self._device)
                return sampled_softmax(states, matrix, bias, targets, drawn, self._log_expected)
            case "gbce":
                drawn = torch.randint(1, len(matrix), (n,), generator=draws)
                return gbce(states, matrix, bias, targets, drawn.to(self._device))
            case "bce":
                drawn = torch.randint(1, len(matrix), targets.shape, generator=draws)
                return bce(states, matrix, bias, targets, drawn.to(self._device))

    def _set_learning_rate(self) -> None:
        """Linear decay to zero over all epochs, after a warm-up of at most 100 steps."""
        total = self.steps_per_epoch * self._config.epochs
        warm = min(100, total // 10) or 1
        share = min((self._step + 1) / warm, (total - self._step) / max(1, total - warm), 1.0)
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * share

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential average; its decay starts low, to forget the first weights soon."""
        decay = min(self._config.ema, self._step / (self._step + 10))
        averaged: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self._step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up `state()` again."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._step = int(state["step"])


def popularity_of(sequences: Sequences, stops: np.ndarray) -> np.ndarray:
    """How often each item occurs at positions < stops[u], int64 [n_items + 1]."""
    position = np.arange(len(sequences.items)) - np.repeat(
        sequences.offsets[:-1], sequences.lengths
    )
    before = position < np.repeat(stops, sequences.lengths)
    return np.bincount(sequences.items[before], minlength=sequences.n_items + 1)
