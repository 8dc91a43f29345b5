"""One run of optimisation: the weights, their average, the optimiser, and an epoch over them."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recalign.config.oracle import OracleConfig
from recalign.oracle.batches import Batch, shuffled_batches, training_windows
from recalign.oracle.dropout import DropoutMasks
from recalign.oracle.fused import product_dtype
from recalign.oracle.itemrows import ItemRows, Taken
from recalign.oracle.losses import bce, full_softmax, gbce, sampled_softmax
from recalign.oracle.sequence_model import SequenceModel
from recalign.seeding import derive_seed, stream
from recalign.sequences import Sequences

SAMPLING_ALPHA = 0.75  # negatives of the sampled softmax are drawn by popularity to this power
BETAS = (0.9, 0.98)
ROWS_FROM = 100_000  # items from which sampled losses move only the rows a step touches


class Training:
    """Everything that changes while the oracle is fitted, with its state for a checkpoint.

    All randomness of epoch e comes from streams named by (seed, e): a checkpoint needs no
    generator states, and a resumed run repeats the undisturbed one.
    """

    def __init__(self, model: SequenceModel, sequences: Sequences) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self._config: OracleConfig = model.config
        self._sequences = sequences
        self._windows = training_windows(sequences, model.config.max_length)
        weights = popularity_of(sequences) ** SAMPLING_ALPHA
        shares = weights / weights.sum()
        self._cumulative = shares.cumsum(0)
        expected = shares * model.config.n_negatives
        self._log_expected = expected.log().float().to(model.items.device)
        self._device = model.items.device
        self._dtype = product_dtype(self._device)
        self._step = 0
        self.steps_per_epoch = -(-len(self._windows) // self._config.batch_users)
        self._rows = None
        if self._config.loss != "full" and sequences.n_items >= ROWS_FROM:
            self._rows = ItemRows(model, self.average, BETAS, self._config.weight_decay)
        by_row = {"items", "bias"} if self._rows else set()
        dense = [name for name, _ in model.named_parameters() if name not in by_row]
        self._dense: list[Tensor] = [model.get_parameter(name) for name in dense]
        self._dense_average: list[Tensor] = [self.average.get_parameter(name) for name in dense]
        self._optimiser = torch.optim.AdamW(
            self._dense,
            lr=self._config.learning_rate,
            weight_decay=self._config.weight_decay,
            betas=BETAS,
            fused=True,
        )

    def run_epoch(self, epoch: int, told: Callable[[int, float], None]) -> float:
        """One pass over all windows; mean loss per target. Each step calls `told(step, loss)`."""
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
        if self._rows:
            self._rows.settle()
        return total / n_targets

    def _learn(self, batch: Batch, masks: DropoutMasks | None, draws: torch.Generator) -> float:
        """One optimiser step; the batch's mean loss."""
        rate = self._set_learning_rate()
        targets = batch.targets.to(self._device)
        named = [batch.histories.to(self._device), targets, self._negatives(len(targets), draws)]
        model, rows = self.model, self._rows
        taken = rows.take(named) if rows else Taken(slice(None), model.items, model.bias, named)
        histories, targets, negatives = taken.named
        matrix = model.item_matrix(taken.vectors, taken.items)
        states = model.all_states(histories, matrix, masks)
        real = states.flatten(0, 1).index_select(0, batch.places.to(self._device))
        loss = self._loss(real, matrix, taken, targets, negatives)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        leaves = [taken.vectors, taken.bias] if rows else []
        torch.nn.utils.clip_grad_norm_([*self._dense, *leaves], 5.0)
        self._optimiser.step()
        self._step += 1
        decay = min(self._config.ema, self._step / (self._step + 10))  # forgets the start soon
        if rows:
            rows.move(taken, self._step, rate, decay)
        with torch.no_grad():
            torch._foreach_lerp_(self._dense_average, self._dense, 1 - decay)
        return loss.item()

    def _negatives(self, n_targets: int, draws: torch.Generator) -> Tensor:
        """Items drawn for a step: by popularity or uniformly, [K], or one per target; or none."""
        n, n_items = self._config.n_negatives, self.model.n_items
        match self._config.loss:
            case "full":
                drawn = torch.empty(0, dtype=torch.int64)
            case "sampled":  # what torch.multinomial does, without adding up the shares each time
                places = torch.rand(n, dtype=torch.float64, generator=draws)
                drawn = torch.searchsorted(self._cumulative, places * self._cumulative[-1])
            case "gbce":
                drawn = torch.randint(1, n_items + 1, (n,), generator=draws)
            case "bce":
                drawn = torch.randint(1, n_items + 1, (n_targets,), generator=draws)
        return drawn.to(self._device)

    def _loss(
        self, states: Tensor, matrix: Tensor, taken: Taken, targets: Tensor, negatives: Tensor
    ) -> Tensor:
        match self._config.loss:
            case "full":
                return full_softmax(states, matrix, taken.bias, targets, self._dtype)
            case "sampled":
                log_expected = self._log_expected[taken.items]
                return sampled_softmax(states, matrix, taken.bias, targets, negatives, log_expected)
            case "gbce":
                n_items = self.model.n_items
                return gbce(states, matrix, taken.bias, targets, negatives, n_items)
            case "bce":
                return bce(states, matrix, taken.bias, targets, negatives)

    def _set_learning_rate(self) -> float:
        """Linear decay to zero over all epochs, after a warm-up of at most 100 steps."""
        total = self.steps_per_epoch * self._config.epochs
        warm = min(100, total // 10) or 1
        share = min((self._step + 1) / warm, (total - self._step) / max(1, total - warm), 1.0)
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * share
        return self._config.learning_rate * share

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "rows": self._rows.state() if self._rows else [],
            "step": self._step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up `state()` again."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._rows:
            self._rows.restore(state["rows"])
        self._step = int(state["step"])


def popularity_of(sequences: Sequences) -> Tensor:
    """How often each item occurs, and once more: float64 [n_items + 1], 0 at padding."""
    counts = torch.from_numpy(sequences.counts()).double() + 1
    counts[0] = 0
    return counts
