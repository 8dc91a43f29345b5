"""The model and its inference in bulk: causality, padding, item text, ranks."""

import numpy as np
import pytest
import torch

from recalign.config.oracle import OracleConfig
from recalign.oracle.inference import POSITIONS, rank_in_full, states_of
from recalign.oracle.sasrec import SASRec
from recalign.oracle.sequence_model import NEVER
from recalign.sequences import Sequences, padded_items

CONFIG = OracleConfig(hidden=16, blocks=2, heads=2, max_length=12)
N_ITEMS = 30


def random_model(seed: int = 0, text: bool = False, hidden: int = 16) -> SASRec:
    """A model whose weights are far from their small initial values."""
    torch.manual_seed(seed)
    item_text = torch.randn(N_ITEMS + 1, 5) * 3 + 7 if text else None
    model = SASRec(CONFIG.model_copy(update={"hidden": hidden}), N_ITEMS, item_text).requires_grad_(
        False
    )
    for weight in model.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    model.items[0] = 0
    return model


def random_sequences() -> Sequences:
    draws = np.random.default_rng(0)
    lengths = draws.integers(0, 25, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(offsets, draws.integers(1, N_ITEMS + 1, offsets[-1]), N_ITEMS)


@pytest.mark.parametrize("hidden", [16, 10])  # one product for query, key and value, or three
def test_the_last_query_alone_gives_the_state_of_the_whole_pass(hidden: int) -> None:
    model = random_model(hidden=hidden)
    histories = torch.randint(1, N_ITEMS + 1, (9, 12))
    lengths = torch.tensor([1, 2, 3, 5, 7, 8, 11, 12, 12])
    histories[torch.arange(12) >= lengths[:, None]] = 0
    everywhere = model.all_states(histories, model.item_matrix(), None)
    expected = everywhere[torch.arange(9), lengths - 1]
    torch.testing.assert_close(model.states(histories, lengths), expected, atol=1e-5, rtol=1e-5)


def test_no_state_sees_a_later_item() -> None:
    model = random_model()
    histories = torch.randint(1, N_ITEMS, (1, 12))
    changed = histories.clone()
    changed[0, 7] += 1
    before, after = (model.all_states(h, model.item_matrix(), None) for h in (histories, changed))
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(2).all()


def test_item_text_is_standardised_and_added_by_a_projection() -> None:
    model = random_model(text=True)
    assert model.text is not None
    torch.testing.assert_close(model.text[1:].mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.text[1:].std(0, correction=0), torch.ones(5))
    matrix = model.item_matrix()
    assert not matrix[0].any()
    torch.testing.assert_close(matrix[4], model.items[4] + model.text[4] @ model.text_projection)


def test_constant_text_columns_do_not_divide_by_zero() -> None:
    item_text = torch.ones(N_ITEMS + 1, 3)
    assert not SASRec(CONFIG, N_ITEMS, item_text).item_matrix().isnan().any()
    with pytest.raises(ValueError, match="rows of item text"):
        SASRec(CONFIG, N_ITEMS, item_text[1:])


def test_initial_weights_come_from_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = SASRec(CONFIG, N_ITEMS, None)
    assert torch.equal(torch.rand(1), expected)
    again = SASRec(CONFIG, N_ITEMS, None)
    other = SASRec(CONFIG.model_copy(update={"seed": 1}), N_ITEMS, None)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.items, other.items)
    assert first.bias[0] == NEVER


def test_states_in_bulk_equal_those_one_by_one_in_the_given_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(POSITIONS, "cpu", 84)  # seven users at a time
    model, sequences = random_model(text=True), random_sequences()
    users = np.random.default_rng(1).permutation(sequences.n_users)
    stops = np.random.default_rng(2).integers(0, 25, len(users))
    bulk = states_of(model, sequences, users, stops)
    for row, (user, stop) in enumerate(zip(users, stops, strict=True)):
        history = sequences.slice(user, 0, stop)[-12:]
        alone = model.states(
            torch.tensor(np.append(history, 0)[None, :12]), torch.tensor([len(history)])
        )
        torch.testing.assert_close(bulk[row], alone[0], atol=1e-5, rtol=1e-4)


def test_ranks_in_full_leave_out_the_whole_history_not_only_what_is_read() -> None:
    model, sequences = random_model(), random_sequences()
    users = np.flatnonzero(sequences.lengths > 2)
    stops = sequences.lengths[users] - 2
    targets = padded_items(
        [sequences.slice(u, s, s + 2) for u, s in zip(users.tolist(), stops.tolist(), strict=True)]
    )
    ranks = rank_in_full(model, sequences, users, stops, targets)
    states = states_of(model, sequences, users, stops)
    scores = (states @ model.item_matrix().T + model.bias).numpy()
    for row, user in enumerate(users):
        seen = set(sequences.slice(int(user), 0, int(stops[row])).tolist())
        for place, target in enumerate(targets[row]):
            if target in targets[row][:place]:
                assert ranks[row, place] == 0
                continue
            shown = [i for i in range(1, N_ITEMS + 1) if i not in seen or i in targets[row]]
            better = sum(scores[row, i] > scores[row, target] for i in shown)
            assert ranks[row, place] == better + 1


def test_padding_of_lists_keeps_order() -> None:
    table = padded_items([np.array([3, 1]), np.array([], dtype=int), np.array([2])])
    assert table.tolist() == [[3, 1], [0, 0], [2, 0]]
    assert padded_items([]).shape == (0, 1)


def test_histories_longer_than_the_model_reads_raise() -> None:
    with pytest.raises(ValueError, match="max_length is 12"):
        random_model().states(torch.ones(1, 13, dtype=torch.int64), torch.tensor([13]))
