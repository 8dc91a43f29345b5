"""The fit: it learns what is learnable and no more, sees nothing late, resumes bit for bit."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recalign.config.oracle import OracleConfig
from recalign.errors import BadInputError
from recalign.metrics import ndcg
from recalign.oracle.batches import trained_lengths
from recalign.oracle.fit import FittedOracle, OracleData, _worth_reading, fit_oracle
from recalign.oracle.inference import rank_in_full, states_of
from recalign.oracle.sequence_model import SequenceModel
from recalign.oracle.storage import load_oracle, save_oracle
from recalign.progress import Progress, silent
from recalign.sequences import Sequences, padded_items

N_ITEMS = 40
QUICK = OracleConfig(hidden=16, blocks=2, max_length=10, batch_users=16, epochs=4, seed=5)


def walks(n_users: int, follow: float, seed: int = 0) -> Sequences:
    """Walks on a ring: with probability `follow` the next item is the one after, else any."""
    draws = np.random.default_rng(seed)
    items = draws.integers(1, N_ITEMS + 1, (n_users, 14))
    for place in range(1, 14):
        follows = draws.random(n_users) < follow
        items[follows, place] = items[follows, place - 1] % N_ITEMS + 1
    return Sequences(np.arange(0, 14 * n_users + 1, 14), items.ravel(), N_ITEMS)


def fit(
    work: Path,
    sequences: Sequences,
    config: OracleConfig = QUICK,
    progress: Progress = silent,
    item_text: np.ndarray | None = None,
) -> FittedOracle:
    """Fit on all but the last three items of each user, validate on the first two of those."""
    seen, users = sequences.before(sequences.lengths - 3), np.arange(sequences.n_users)
    targets = sequences.items.reshape(-1, 14)[:, 11:13]
    return fit_oracle(config, OracleData(seen, users, targets, item_text), work, progress)


def unvalidated(sequences: Sequences, stops: np.ndarray) -> OracleData:
    """Positions below `stops`, and no validation user."""
    none = np.zeros((0, 1), dtype=np.int64)
    return OracleData(sequences.before(stops), none[:, 0], none)


def reached(model: SequenceModel, sequences: Sequences) -> float:
    """Mean NDCG@10 of the last item."""
    users = np.arange(sequences.n_users)
    last = padded_items([sequences.slice(u, 13, 14) for u in users.tolist()])
    ranks = rank_in_full(model, sequences, users, sequences.lengths - 1, last)
    return float(ndcg(ranks, np.ones(len(users), dtype=int), 10).mean())


def weights(fitted: FittedOracle) -> torch.Tensor:
    return torch.cat([value.flatten() for value in fitted.model.state_dict().values()])


@pytest.mark.parametrize("loss", ["full", "sampled", "gbce", "bce"])
def test_a_ring_is_learned_by_every_loss(tmp_path: Path, loss: str) -> None:
    config = QUICK.model_copy(update={"loss": loss, "epochs": 10, "n_negatives": 20})
    sequences = walks(300, follow=0.9)
    # The best possible scorer puts the true next item first in about 9 of 10 cases.
    assert 0.75 < reached(fit(tmp_path, sequences, config).model, sequences) < 0.97


def test_noise_is_not_learned(tmp_path: Path) -> None:
    sequences = walks(300, follow=0.0)
    chance = sum(1 / np.log2(1 + rank) for rank in range(1, 11)) / (N_ITEMS - 11)
    found = reached(fit(tmp_path, sequences).model, sequences)
    assert found == pytest.approx(chance, abs=0.06), "better than chance on noise is a leak"


def test_nothing_at_or_after_the_stop_changes_the_fit(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    items = sequences.items.reshape(60, 14).copy()
    items[:, 13] = 1  # only after the validation targets
    changed = Sequences(sequences.offsets, items.ravel(), N_ITEMS)
    first, second = fit(tmp_path / "a", sequences), fit(tmp_path / "b", changed)
    assert torch.equal(weights(first), weights(second))
    items[:, 10] = 1  # the last item before the stop
    changed = Sequences(sequences.offsets, items.ravel(), N_ITEMS)
    assert not torch.equal(weights(first), weights(fit(tmp_path / "c", changed)))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    first, again = fit(tmp_path / "a", sequences), fit(tmp_path / "b", sequences)
    assert torch.equal(weights(first), weights(again))
    assert first.temperature == again.temperature
    other = fit(tmp_path / "c", sequences, QUICK.model_copy(update={"seed": 6}))
    assert not torch.equal(weights(first), weights(other))


class Killed(Exception):
    """What stands in for a kill."""


def killing(at: int) -> Progress:
    """A progress callable that raises once `at` steps are done."""

    def progress(done: int, total: int, note: str = "") -> None:
        if done >= at:
            raise Killed

    return progress


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_a_killed_fit_resumes_to_the_same_bits(tmp_path: Path, loss: str) -> None:
    sequences = walks(60, follow=0.9)  # four steps an epoch
    config = QUICK.model_copy(update={"loss": loss})
    whole = fit(tmp_path / "whole", sequences, config)
    heard: list[int] = []
    for at in (4, 10):  # right after the first epoch's checkpoint, then in mid-epoch
        with pytest.raises(Killed):
            fit(tmp_path / "killed", sequences, config, killing(at))
    resumed = fit(
        tmp_path / "killed", sequences, config, lambda done, total, note="": heard.append(done)
    )
    assert heard[0] == 9, "the first two epochs were not taken from the checkpoint"
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.curve.drop("seconds").equals(whole.curve.drop("seconds"))
    assert (resumed.temperature, resumed.calibration) == (whole.temperature, whole.calibration)


def test_a_finished_fit_is_not_run_again(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    first = fit(tmp_path, sequences)
    again = fit(tmp_path, sequences, progress=killing(0))
    assert torch.equal(weights(first), weights(again))
    assert first.curve.equals(again.curve)


def test_a_checkpoint_of_other_settings_or_data_is_not_resumed(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    fit(tmp_path, sequences)
    other = QUICK.model_copy(update={"learning_rate": 1e-3})
    clean = fit(tmp_path / "clean", sequences, other)
    assert torch.equal(weights(fit(tmp_path, sequences, other)), weights(clean))
    with pytest.raises(Killed):
        fit(tmp_path, walks(60, follow=0.9, seed=1), other, killing(1))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    fit(tmp_path, sequences)
    checkpoint = next(tmp_path.glob("*.ckpt"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(BadInputError, match=checkpoint.name):
        fit(tmp_path, sequences)


def test_the_best_epoch_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    sequences = walks(300, follow=0.0)  # on noise the validation soon stops rising
    config = QUICK.model_copy(update={"epochs": 40, "patience": 2})
    fitted = fit(tmp_path, sequences, config)
    curve = fitted.curve["valid_ndcg_at_10"].to_list()
    best = curve.index(max(curve))
    assert len(curve) == best + 1 + 2 < 40
    users = np.arange(300)
    targets = padded_items([sequences.slice(u, 11, 13) for u in users.tolist()])
    ranks = rank_in_full(fitted.model, sequences, users, sequences.lengths - 3, targets)
    assert float(ndcg(ranks, (ranks > 0).sum(1), 10).mean()) == pytest.approx(max(curve))


def test_without_validation_users_all_epochs_run(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    fitted = fit_oracle(QUICK, unvalidated(sequences, sequences.lengths - 3), tmp_path)
    assert fitted.curve["valid_ndcg_at_10"].null_count() == len(fitted.curve) == QUICK.epochs
    assert fitted.temperature == 1.0


def test_histories_too_short_to_learn_from_are_refused(tmp_path: Path) -> None:
    sequences = walks(5, follow=0.9)
    with pytest.raises(BadInputError, match="two items"):
        fit_oracle(QUICK, unvalidated(sequences, np.ones(5, dtype=int)), tmp_path)


def test_positions_that_no_training_history_reached_are_never_read(tmp_path: Path) -> None:
    sequences = walks(60, 0.9)
    roomy = QUICK.model_copy(update={"max_length": 14})
    fitted = fit(tmp_path / "work", sequences, roomy)  # the first eleven items of each user
    save_oracle(tmp_path / "made", fitted)
    users = np.arange(60)
    for model in (fitted.model, load_oracle(tmp_path / "made")[0]):
        before = states_of(model, sequences, users, sequences.lengths)
        model.get_parameter("positions")[10:] = 1e4  # trained on ten inputs of a user
        assert torch.equal(states_of(model, sequences, users, sequences.lengths), before)
        tails = np.stack([sequences.slice(user, 4, 14) for user in users.tolist()])
        alone = model.states(torch.from_numpy(tails), torch.full((60,), 10))
        assert torch.equal(alone, before)


def test_an_oracle_of_an_earlier_version_reads_as_many_items_as_then(tmp_path: Path) -> None:
    save_oracle(tmp_path / "made", fit(tmp_path / "work", walks(60, 0.9)))
    kept = tmp_path / "made" / "oracle.json"
    facts = json.loads(kept.read_text())
    del facts["longest"]
    kept.write_text(json.dumps(facts))
    assert load_oracle(tmp_path / "made")[0].longest == QUICK.max_length


def with_long_users(n_long: int) -> Sequences:
    """150 users of 14 items and some of 42."""
    short, long = walks(150, 0.9), walks(3 * n_long, 0.9, seed=1).items
    ends = 150 * 14 + 42 * np.arange(1, n_long + 1)
    return Sequences(np.append(short.offsets, ends), np.append(short.items, long.ravel()), N_ITEMS)


def test_positions_of_one_long_history_are_not_read(tmp_path: Path) -> None:
    sequences, users = with_long_users(1), np.arange(150)
    stops = sequences.lengths - 3
    seen = sequences.before(stops)
    targets = sequences.window(users, stops[users], np.full(150, 2))
    roomy = QUICK.model_copy(update={"max_length": 40})
    fitted = fit_oracle(roomy, OracleData(seen, users, targets), tmp_path)
    assert fitted.model.longest == 10


@pytest.mark.parametrize(("gain", "read"), [(-0.1, 10), (0.0, 10), (0.02, 10), (0.2, 38)])
def test_as_few_items_are_read_as_validation_does_not_show_to_be_worse(gain, read) -> None:
    sequences = with_long_users(10)
    tried = [10, 12, 14, 16, 19, 23, 27, 32, 38]  # 150 users train ten positions, ten users 38
    assert trained_lengths(sequences.before(sequences.lengths - 3), 40) == tried
    score = np.random.default_rng(0).random(200)
    noise = np.random.default_rng(1).normal(0, 0.5, 200)
    reached = dict.fromkeys(tried, score) | {38: score + gain + noise - noise.mean()}
    data: Any = SimpleNamespace(
        sequences=sequences.before(sequences.lengths - 3),
        ndcg_at_10=lambda model: reached[model.longest],
    )
    model: Any = SimpleNamespace(config=OracleConfig(max_length=40))
    assert _worth_reading(model, data) == read


def test_item_text_is_used_and_survives_saving_to_the_bit(tmp_path: Path) -> None:
    sequences = walks(60, follow=0.9)
    item_text = np.random.default_rng(0).normal(size=(N_ITEMS + 1, 6)).astype(np.float32)
    fitted = fit(tmp_path / "work", sequences, item_text=item_text)
    unread = QUICK.model_copy(update={"item_text": False})
    assert fit(tmp_path / "unread", sequences, unread, item_text=item_text).model.text is None
    save_oracle(tmp_path / "saved", fitted)
    loaded, facts = load_oracle(tmp_path / "saved", "cpu")
    users = np.arange(60)
    states = [states_of(model, sequences, users, users) for model in (fitted.model, loaded)]
    assert torch.equal(states[0], states[1])
    assert torch.equal(fitted.model.item_matrix(), loaded.item_matrix())
    assert torch.equal(fitted.model.bias, loaded.bias)
    assert facts["temperature"] == fitted.temperature
    assert facts["calibration"] == fitted.calibration
    assert str(tmp_path) not in (tmp_path / "saved" / "oracle.json").read_text()


def test_a_folder_without_an_oracle_or_with_a_torn_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no readable oracle"):
        load_oracle(tmp_path, "cpu")
    save_oracle(tmp_path, fit(tmp_path / "work", walks(60, follow=0.9)))
    file = tmp_path / "oracle.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(BadInputError, match="no readable oracle"):
        load_oracle(tmp_path, "cpu")
    facts = json.loads((tmp_path / "oracle.json").read_text())
    assert facts["n_items"] == N_ITEMS
