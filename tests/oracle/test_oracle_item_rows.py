"""Large catalogues: a step touches the rows it needs, and leaves what a whole step would."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recalign.config.oracle import OracleConfig
from recalign.oracle import training
from recalign.oracle.fit import OracleData, _taken, fit_oracle
from recalign.oracle.inference import rank_in_full
from recalign.oracle.itemrows import ItemRows
from recalign.oracle.sasrec import SASRec
from recalign.oracle.sequence_model import SequenceModel
from recalign.oracle.training import Training
from recalign.ranking import CHUNK_ELEMENTS
from recalign.sequences import Sequences

BETAS = (0.9, 0.98)
TINY = OracleConfig(hidden=8, blocks=1, max_length=6, dropout=0.0, item_text=False, seed=3)


def models(n_items: int) -> tuple[SASRec, SASRec]:
    """A model, and another that stands for its average."""
    model, average = SASRec(TINY, n_items, None), SASRec(TINY, n_items, None)
    return model, average.requires_grad_(False)


def test_rows_taken_at_every_step_move_and_average_as_under_adamw() -> None:
    model, average = models(5)
    rows = ItemRows(model, average, BETAS, weight_decay=0.01)
    vectors, mean = model.items.detach().clone().requires_grad_(), average.items.clone()
    adam = torch.optim.AdamW([vectors], lr=0.1, betas=BETAS, weight_decay=0.01)
    aims = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    for step, aim in enumerate(aims, start=1):
        taken = rows.take([torch.arange(6).flip(0)])
        assert taken.named[0].tolist() == [5, 4, 3, 2, 1, 0]
        ((taken.vectors * aim).sum() ** 2 + taken.bias.sum()).backward()
        rows.move(taken, step, rate=0.1, decay=0.5)
        adam.zero_grad()
        ((vectors * aim).sum() ** 2).backward()
        adam.step()
        mean.lerp_(vectors.detach(), 0.5)
    torch.testing.assert_close(model.items.detach(), vectors.detach())
    torch.testing.assert_close(average.items, mean)


@pytest.mark.parametrize("decay", [0.8, 0.0])
def test_the_average_of_rows_not_taken_catches_up_and_their_weights_stand_still(
    decay: float,
) -> None:
    model, average = models(4)
    average.items.add_(1.0)  # as if the weights had come a long way
    start, mean = model.items.detach().clone(), average.items.clone()
    rows = ItemRows(model, average, BETAS, weight_decay=0.0)
    for step, item in enumerate([2, 3, 3, 2, 2], start=1):
        taken = rows.take([torch.tensor([item, item])])
        assert taken.vectors.shape == (1, 8)
        (taken.vectors.sum() + taken.bias.sum()).backward()
        rows.move(taken, step, rate=0.1, decay=decay)
        mean.lerp_(model.items.detach(), 1 - decay)  # the average of all rows at every step
    rows.settle()
    torch.testing.assert_close(average.items, mean)
    assert torch.equal(model.items[[0, 1, 4]], start[[0, 1, 4]])
    assert not torch.equal(model.items[2], start[2])
    settled = average.items.clone()
    rows.settle()
    torch.testing.assert_close(average.items, settled)


def ring(n_users: int, n_items: int) -> Sequences:
    """Users who walk along a ring of items from a random start; one in ten steps goes anywhere."""
    draws = np.random.default_rng(1)
    items = (draws.integers(0, n_items, (n_users, 1)) + np.arange(14)) % n_items
    strayed = draws.random(items.shape) < 0.1
    items[strayed] = draws.integers(0, n_items, int(strayed.sum()))
    return Sequences(np.arange(n_users + 1) * 14, items.ravel() + 1, n_items)


def fitted(
    work: Path, loss: str, item_text: np.ndarray | None = None
) -> tuple[SequenceModel, float]:
    """The model fitted to all but the last item of each user, and the median rank of that."""
    config = OracleConfig(
        hidden=16, max_length=10, batch_users=16, epochs=10, loss=loss, n_negatives=20, seed=5
    )
    sequences, users = ring(300, 40), np.arange(300)
    last = sequences.items.reshape(300, 14)[:, 13:]
    seen = sequences.before(sequences.lengths - 1)
    model = fit_oracle(config, OracleData(seen, users, last, item_text), work).model
    ranks = rank_in_full(model, sequences, users, sequences.lengths - 1, last)
    return model, float(np.median(ranks))


@pytest.mark.parametrize("loss", ["sampled", "gbce", "bce"])
def test_a_ring_is_learned_row_by_row(
    tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "ROWS_FROM", 1)
    text = np.random.default_rng(2).normal(size=(41, 12)) if loss == "sampled" else None
    model, rank = fitted(tmp_path, loss, text)
    assert rank == 1
    assert model.items[0].abs().sum() == 0


def whole_catalogue(n_items: int) -> Training:
    """A training on few users of a large catalogue, with sampled softmax."""
    sequences = ring(40, n_items)
    config = TINY.model_copy(update={"loss": "sampled", "n_negatives": 30, "batch_users": 8})
    model = SASRec(config, n_items, None)
    return Training(model, sequences)


class Made(TorchDispatchMode):
    """Hears of every tensor that an operation makes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, tensor.numel())
        return made


@contextmanager
def heard() -> Iterator[Made]:
    with Made() as made:
        yield made


def test_a_step_makes_no_tensor_as_long_as_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    n_items = training.ROWS_FROM
    steps: list[int] = []
    trained = whole_catalogue(n_items)
    with heard() as made:
        monkeypatch.setattr(ItemRows, "settle", lambda self: None)  # once an epoch
        trained.run_epoch(1, lambda step, loss: steps.append(made.largest))
    assert 0 < steps[0] <= steps[-1] < n_items
    monkeypatch.setattr(training, "ROWS_FROM", n_items + 1)
    with heard() as made:
        whole_catalogue(n_items).run_epoch(1, lambda step, loss: None)
    assert made.largest >= n_items * TINY.hidden, "the measure sees a whole gradient"


def test_full_ranking_never_holds_users_times_items() -> None:
    sequences, users = ring(900, 4000), np.arange(900)
    model = SASRec(TINY, 4000, None)
    stops = sequences.lengths - 1
    with heard() as made:
        ranks = rank_in_full(model, sequences, users, stops, sequences.items[13::14, None])
    assert made.largest <= CHUNK_ELEMENTS < 900 * 4000
    few = rank_in_full(
        model, sequences, users[:5], stops[:5], sequences.items[13 : 5 * 14 : 14, None]
    )
    assert np.array_equal(ranks[:5], few)


def test_what_validation_users_took_is_found_in_bounded_memory() -> None:
    lengths = np.full(3000, 20)
    lengths[7] = 30_000  # padded to this, the histories of all would take 720 MB
    draws = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sequences = Sequences(offsets, draws.integers(1, 501, offsets[-1]), 500)
    users = np.arange(3000)
    later = draws.integers(1, 501, (3000, 2))
    data = OracleData(sequences.before(lengths - 2), users, later)
    items = draws.integers(1, 501, (3000, 6))
    tracemalloc.start()
    found = _taken(data, items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20
    for user in (0, 7, 2999):
        took = {*sequences.slice(user, 0, lengths[user] - 2), *later[user]}
        assert found[user].tolist() == [item in took for item in items[user]]
