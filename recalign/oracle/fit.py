"""Fit the oracle on the training windows, keep its best averaged weights, calibrate its scores."""

import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recalign.config.oracle import OracleConfig
from recalign.errors import BadInputError
from recalign.metrics import ndcg
from recalign.oracle.architecture import new_model
from recalign.oracle.batches import trained_lengths
from recalign.oracle.calibration import calibrate
from recalign.oracle.checkpoints import fit_identity, load_checkpoint, save_checkpoint
from recalign.oracle.inference import rank_in_full, scores_of
from recalign.oracle.losses import gbce_exponent
from recalign.oracle.sequence_model import SequenceModel
from recalign.oracle.training import Training, popularity_of
from recalign.progress import Progress, silent
from recalign.ranking import row_chunks
from recalign.seeding import stream
from recalign.sequences import Sequences

log = logging.getLogger(__name__)

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

    model: SequenceModel
    curve: pl.DataFrame
    temperature: float
    calibration: dict[str, float]


@dataclass(frozen=True)
class OracleData:
    """What an oracle is fitted on, and what it is stopped early and calibrated by.

    sequences: of all users, cut where the fit ends; users [U]: validation users, all with a
    history; targets [U, T]: the items that follow theirs, soonest first, 0 padded; item_text
    [n_items + 1, e], None: not used.
    """

    sequences: Sequences
    users: np.ndarray
    targets: np.ndarray
    item_text: np.ndarray | None = None

    @property
    def stops(self) -> np.ndarray:
        """The lengths of the validation users' histories, int64 [U]."""
        return self.sequences.lengths[self.users]

    def ndcg_at_10(self, model: SequenceModel) -> np.ndarray:
        """NDCG@10 of each validation user in the full ranking, seen items left out, float64 [U]."""
        ranks = rank_in_full(model, self.sequences, self.users, self.stops, self.targets)
        return ndcg(ranks, (ranks > 0).sum(1), 10)


def fit_oracle(
    config: OracleConfig,
    data: OracleData,
    work: Path,
    progress: Progress = silent,
    device: str = "cpu",
) -> FittedOracle:
    """Train on the sequences alone; validate on what follows them.

    SASRec then reads as many items of a history as are worth it, see `_worth_reading`.

    `work` keeps one checkpoint, taken up again if it is there. Without validation users all epochs
    are run and the last average is kept.

    BadInputError: no user has two items, or the checkpoint is damaged.
    """
    if not config.item_text:
        data = replace(data, item_text=None)
    training = _prepare(config, data, device)
    best, curve = _train(training, data, work, progress)
    training.model.load_state_dict(best)
    model = training.model.requires_grad_(False)
    if model.learns_positions and len(data.users):
        model.longest = _worth_reading(model, data)
    temperature, calibration = _calibrate(model, data)
    return FittedOracle(model, pl.DataFrame(curve, CURVE, orient="row"), temperature, calibration)


def _prepare(config: OracleConfig, data: OracleData, device: str) -> Training:
    """A model at its start: random weights, and an output bias at log popularity."""
    if not (data.sequences.lengths > 1).any():
        raise BadInputError(
            "the oracle has nothing to learn from: no user has two items in history"
        )
    given = data.item_text
    text = None if given is None else torch.from_numpy(np.asarray(given, np.float32))
    model = new_model(config, data.sequences.n_items, text)
    if model.learns_positions:
        model.longest = trained_lengths(data.sequences, config.max_length)[-1]
    popularity = popularity_of(data.sequences)[1:]
    with torch.no_grad():
        model.bias[1:] = (popularity / popularity.mean()).log().float()
        if config.loss == "gbce":  # log-odds with many negatives start low, and are slow to learn
            exponent = gbce_exponent(config.n_negatives, data.sequences.n_items)
            model.bias[1:] += math.log(exponent / config.n_negatives)
    return Training(model.to(device), data.sequences)


def _train(
    training: Training, data: OracleData, work: Path, progress: Progress
) -> tuple[dict[str, torch.Tensor], list[tuple[Any, ...]]]:
    """Epochs until patience runs out; the best averaged weights, and the curve's rows."""
    config, sequences = training.model.config, data.sequences
    identity = fit_identity(
        config, sequences.offsets, sequences.items, data.users, data.targets, data.item_text
    )
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
        reached = float(data.ndcg_at_10(training.average).mean()) if len(data.users) else None
        curve.append((epoch, loss, reached, time.perf_counter() - started))
        if reached is None or reached > max((row[2] for row in curve[:-1]), default=-1.0):
            best_epoch = epoch
            best = {name: value.clone() for name, value in training.average.state_dict().items()}
        state = {"training": training.state(), "curve": [list(row) for row in curve]}
        save_checkpoint(work, {"of": identity, "best": best, "best_epoch": best_epoch, **state})
        note = "" if reached is None else f", valid NDCG@10 {reached:.4f}"
        progress(epoch * training.steps_per_epoch, total, f"loss {loss:.3f}, epoch {epoch}{note}")
        log.info("epoch %d of %d, loss %.3f%s", epoch, config.epochs, loss, note)
    return best, curve


def _worth_reading(model: SequenceModel, data: OracleData) -> int:
    """The least of `trained_lengths` that validation does not show to rank worse than the best.

    Positions that no user trained stay as they were drawn, and those that a few trained tell
    little: reading them can cost more than the items there are worth. A length is shown to be worse
    where its users lose two standard errors on average.
    """
    found: dict[int, np.ndarray] = {}
    for longest in trained_lengths(data.sequences, model.config.max_length):
        model.longest = longest
        found[longest] = data.ndcg_at_10(model)
    best = max(found.values(), key=np.mean)
    lost = {longest: best - reached for longest, reached in found.items()}
    return next(n for n, one in lost.items() if one.mean() <= 2 * one.std() / len(one) ** 0.5)


def _calibrate(model: SequenceModel, data: OracleData) -> tuple[float, dict[str, float]]:
    """Temperature from each validation user's next item against random items it did not take."""
    if not len(data.users):
        return 1.0, {"pairs": 0.0}
    draws = stream(model.config.seed, "calibration")
    shape = (len(data.users), CALIBRATION_NEGATIVES)
    negatives = draws.integers(1, data.sequences.n_items + 1, shape)
    items = np.concatenate([data.targets[:, :1], negatives], 1)
    scores = scores_of(model, data.sequences, data.users, data.stops, items)
    differences = (scores[:, :1] - scores[:, 1:]).astype(np.float64)
    free = ~_taken(data, negatives)
    halves = np.broadcast_to(np.arange(len(differences))[:, None] % 2 == 0, shape)
    return calibrate(differences[free], halves[free])


def _taken(data: OracleData, items: np.ndarray) -> np.ndarray:
    """Which of `items` [U, n] the validation users have in their history or among their targets."""
    taken, stops = np.zeros(items.shape, dtype=bool), data.stops
    for rows in row_chunks(len(items), int(stops.max())):
        seen, _ = data.sequences.until(data.users[rows], stops[rows], int(stops[rows].max()))
        theirs = np.concatenate([seen, data.targets[rows]], axis=1)
        own = np.arange(len(seen))[:, None] * (data.sequences.n_items + 1)
        taken[rows] = np.isin(own + items[rows], own + theirs)
    return taken
