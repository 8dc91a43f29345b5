"""Fit SASRec on the training windows, keep its best averaged weights, calibrate its scores."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recalign.config.oracle import OracleConfig
from recalign.errors import BadInputError
from recalign.metrics import ndcg
from recalign.oracle.batches import training_windows
from recalign.oracle.calibration import calibrate
from recalign.oracle.checkpoints import fit_identity, load_checkpoint, save_checkpoint
from recalign.oracle.inference import padded, rank_in_full, scores_of
from recalign.oracle.losses import gbce_exponent
from recalign.oracle.sasrec import SASRec
from recalign.oracle.training import Training, popularity_of
from recalign.progress import Progress, silent
from recalign.ranking import row_chunks
from recalign.seeding import stream
from recalign.sequences import Sequences

CALIBRATION_NEGATIVES = 20  # random items each validation user's next item is compared with
CURVE = {
    "epoch": pl.Int32,  # from 1
    "loss": pl.Float64,  # mean training loss per target
    "valid_ndcg_at_10": pl.Float64,  # of the averaged weights; null without validation users
    "seconds": pl.Float64,  # wall time of the epoch and its validation
}


@dataclass(frozen=True)
class FittedOracle:
    """The model with its best averaged weights, how it got there, and how to read its scores."""

    model: SASRec
    curve: pl.DataFrame
    temperature: float
    calibration: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """Users [U], the stops of their histories [U], and the items that follow [U, T] (0 padded)."""

    users: np.ndarray
    stops: np.ndarray
    targets: np.ndarray

    def ndcg_at_10(self, model: SASRec, sequences: Sequences) -> float:
        """Mean NDCG@10 in the full ranking, seen items left out."""
        ranks = rank_in_full(model, sequences, self.users, self.stops, self.targets)
        return float(ndcg(ranks, (ranks > 0).sum(1), 10).mean())


def fit_oracle(
    config: OracleConfig,
    sequences: Sequences,
    stops: np.ndarray,
    valid_users: np.ndarray,
    valid_targets: list[np.ndarray],
    item_text: np.ndarray | None,
    work: Path,
    progress: Progress = silent,
    device: str = "cpu",
) -> FittedOracle:
    """Train on positions < stops [n_users] alone; validate on the items that follow them.

    valid_targets[i] are the items of valid_users[i] at and after its stop, soonest first;
    item_text [n_items + 1, e]; `work` keeps one checkpoint, taken up again if it is there.
    Without validation users all epochs are run and the last average is kept.

    BadInputError: no user has two items before its stop, or the checkpoint is damaged.
    """
    stops = np.asarray(stops, dtype=np.int64)
    kept = [i for i, items in enumerate(valid_targets) if len(items) and stops[valid_users[i]] > 0]
    users = np.asarray(valid_users, dtype=np.int64)[kept]
    validation = Validation(users, stops[users], padded([valid_targets[i] for i in kept]))
    text = item_text if config.item_text else None
    training = _prepare(config, sequences, stops, text, device)
    identity = fit_identity(
        config, sequences.offsets, sequences.items, stops, users, validation.targets, text
    )
    best, curve = _train(training, sequences, validation, identity, work, progress)
    training.model.load_state_dict(best)
    model = training.model.requires_grad_(False)
    temperature, calibration = _calibrate(model, sequences, validation)
    return FittedOracle(model, pl.DataFrame(curve, CURVE, orient="row"), temperature, calibration)


def _prepare(
    config: OracleConfig,
    sequences: Sequences,
    stops: np.ndarray,
    item_text: np.ndarray | None,
    device: str,
) -> Training:
    """A model at its start: random weights, and an output bias at log popularity."""
    windows = training_windows(sequences, stops, config.max_length)
    if not len(windows):
        raise BadInputError(
            "the oracle has nothing to learn from: no user has two items in history"
        )
    text = None if item_text is None else torch.from_numpy(np.asarray(item_text, np.float32))
    model = SASRec(config, sequences.n_items, text)
    popularity = torch.from_numpy(popularity_of(sequences, stops)).double() + 1
    popularity[0] = 0
    with torch.no_grad():
        model.bias[1:] = (popularity[1:] / popularity[1:].mean()).log().float()
        if config.loss == "gbce":  # log-odds with many negatives start low, and are slow to learn
            exponent = gbce_exponent(config.n_negatives, sequences.n_items)
            model.bias[1:] += math.log(exponent / config.n_negatives)
    return Training(model.to(device), sequences, windows, popularity)


def _train(
    training: Training,
    sequences: Sequences,
    validation: Validation,
    identity: str,
    work: Path,
    progress: Progress,
) -> tuple[dict[str, torch.Tensor], list[tuple[Any, ...]]]:
    """Epochs until patience runs out; the best averaged weights, and the curve's rows."""
    config = training.model.config
    curve: list[tuple[Any, ...]] = []
    best: dict[str, torch.Tensor] = {}
    best_epoch = 0
    if (kept := load_checkpoint(work, identity)) is not None:
        training.restore(kept["training"])
        curve, best = [tuple(row) for row in kept["curve"]], kept["best"]
        best_epoch = kept["best_epoch"]
    total = config.epochs * training.steps_per_epoch
    for epoch in range(len(curve) + 1, config.epochs + 1):
        if curve and epoch - 1 - best_epoch >= config.patience:
            break
        started = time.perf_counter()
        told = lambda step, loss: progress(step, total, f"loss {loss:.3f}")  # noqa: E731
        loss = training.run_epoch(epoch, told)
        reached = (
            validation.ndcg_at_10(training.average, sequences) if len(validation.users) else None
        )
        curve.append((epoch, loss, reached, time.perf_counter() - started))
        if reached is None or reached > max((row[2] for row in curve[:-1]), default=-1.0):
            best_epoch = epoch
            best = {name: value.clone() for name, value in training.average.state_dict().items()}
        state = {"training": training.state(), "curve": [list(row) for row in curve]}
        save_checkpoint(work, {"of": identity, "best": best, "best_epoch": best_epoch, **state})
        note = "" if reached is None else f", valid NDCG@10 {reached:.4f}"
        progress(epoch * training.steps_per_epoch, total, f"epoch {epoch}: loss {loss:.3f}{note}")
    return best, curve


def _calibrate(
    model: SASRec, sequences: Sequences, validation: Validation
) -> tuple[float, dict[str, float]]:
    """Temperature from each validation user's next item against random items it did not take."""
    if not len(validation.users):
        return 1.0, {"pairs": 0.0}
    draws = stream(model.config.seed, "calibration")
    shape = (len(validation.users), CALIBRATION_NEGATIVES)
    negatives = draws.integers(1, sequences.n_items + 1, shape)
    items = np.concatenate([validation.targets[:, :1], negatives], 1)
    scores = scores_of(model, sequences, validation.users, validation.stops, items)
    differences = (scores[:, :1] - scores[:, 1:]).astype(np.float64)
    free = ~_taken(sequences, validation, negatives)
    halves = np.broadcast_to(np.arange(len(differences))[:, None] % 2 == 0, shape)
    return calibrate(differences[free], halves[free])


def _taken(sequences: Sequences, validation: Validation, items: np.ndarray) -> np.ndarray:
    """Which of `items` [U, n] the validation users have in their history or among their targets."""
    taken = np.zeros(items.shape, dtype=bool)
    for rows in row_chunks(len(items), int(validation.stops.max())):
        seen, _ = sequences.until(
            validation.users[rows], validation.stops[rows], int(validation.stops[rows].max())
        )
        theirs = np.concatenate([seen, validation.targets[rows]], axis=1)
        own = np.arange(len(seen))[:, None] * (sequences.n_items + 1)
        taken[rows] = np.isin(own + items[rows], own + theirs)
    return taken
