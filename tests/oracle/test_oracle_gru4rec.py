"""GRU4Rec stands where SASRec stands: same items' side, losses, ranks, storage."""

import numpy as np
import torch

from recalign.config.oracle import OracleConfig
from recalign.oracle.fit import OracleData, fit_oracle
from recalign.oracle.gru4rec import GRU4Rec
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle, save_oracle
from recalign.sequences import Sequences

N_ITEMS = 12
CONFIG = OracleConfig(
    architecture="gru4rec", hidden=16, blocks=2, max_length=12, epochs=6, batch_users=8, ema=0.9,
    item_text=False, learning_rate=0.01,
)  # fmt: skip


def ring(n_users: int = 60, length: int = 10) -> Sequences:
    """Every user walks around the same circle of items: the next item is certain."""
    starts = np.random.default_rng(0).integers(0, N_ITEMS, n_users)
    items = (starts[:, None] + np.arange(length)) % N_ITEMS + 1
    return Sequences(np.arange(n_users + 1) * length, items.ravel(), N_ITEMS)


def test_the_state_of_a_history_is_that_of_its_last_item_whatever_stands_behind() -> None:
    model = GRU4Rec(CONFIG, N_ITEMS, None).requires_grad_(False)
    histories = torch.randint(1, N_ITEMS + 1, (5, 12))
    lengths = torch.tensor([1, 4, 7, 11, 12])
    cut = histories.masked_fill(torch.arange(12) >= lengths[:, None], 0)
    everywhere = model.all_states(histories, model.item_matrix(), None)
    expected = everywhere[torch.arange(5), lengths - 1]
    torch.testing.assert_close(model.states(cut, lengths), expected)


def test_a_ring_is_learned_and_the_fit_survives_saving_to_the_bit(tmp_path) -> None:
    whole = ring()
    seen = Sequences(np.arange(61) * 8, whole.items.reshape(60, 10)[:, :8].ravel(), N_ITEMS)
    users = np.arange(60)
    targets = whole.items.reshape(60, 10)[:, 8:9]
    data = OracleData(seen, users, targets)
    fitted = fit_oracle(CONFIG, data, tmp_path / "work")
    assert data.ndcg_at_10(fitted.model).mean() > 0.95  # seen items are left out: four remain
    save_oracle(tmp_path / "made", fitted)
    loaded, _ = load_oracle(tmp_path / "made")
    assert isinstance(loaded, GRU4Rec)
    stops = seen.lengths
    both = [states_of(model, seen, users, stops) for model in (fitted.model, loaded)]
    assert torch.equal(*both)
    assert loaded.longest == 12  # a recurrent state has no positions that were not trained


def test_the_architecture_counts_only_when_it_is_not_the_one_that_always_was() -> None:
    assert "architecture" not in OracleConfig().identity()
    assert CONFIG.identity()["architecture"] == "gru4rec"
    assert CONFIG.model_copy(update={"heads": 4}).identity() == CONFIG.identity()
