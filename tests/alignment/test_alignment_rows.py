"""Pairs as rows: what is left out, who is held out, in which order rows are trained on."""

import numpy as np
import polars as pl
import pytest

from recalign.alignment.rows import encode_pairs, held_out, require_pairs
from recalign.errors import BadInputError, UserError
from recalign.policy import Policy
from recalign.training.order import LengthGroupedOrder
from tests.alignment.alignment_samples import make_pairs, table


def test_long_pairs_are_counted_and_the_others_are_whole(plain: Policy) -> None:
    pairs = table(
        (1, "w3 w4 w5", ["w6", "w7 w8"]),  # 3 + 2 + the end token: 6
        (2, "w3 w4 w5", ["w6", "w7 w8 w9"]),  # 7
        (3, "w3 w4 w5 w6", ["w6 w7 w8", "w9"]),  # 8
    )
    rows = encode_pairs(pairs, plain, max_length=6)
    assert rows.left_out == {"too_long": 2, "same_tokens": 0, "empty": 0}
    assert rows.users.tolist() == [1]
    assert (rows.prompts, rows.chosen, rows.rejected) == ([[3, 4, 5]], [[6, 1]], [[[7, 8, 1]]])
    assert rows.lengths.tolist() == [3 + 2 + 3]


def test_texts_that_become_the_same_tokens_or_none_are_counted(plain: Policy) -> None:
    pairs = table((1, "w3", ["strange", "unheard"]), (2, "w3", ["w4", "w5"]), (3, "", ["w4", "w5"]))
    rows = encode_pairs(pairs, plain, 64)
    assert rows.left_out == {"too_long": 0, "same_tokens": 1, "empty": 1}
    assert rows.users.tolist() == [2]


def test_smoothing_becomes_eps_of_every_rejected(plain: Policy) -> None:
    pairs = make_pairs(2, n_rejected=3)
    assert encode_pairs(pairs, plain, 64).eps.tolist() == [[0.0] * 3] * 2
    eps = [[0.1, 0.2, 0.3], [0.0, 0.4, 0.1]]
    rows = encode_pairs(pairs.with_columns(smoothing=pl.Series(eps)), plain, 64)
    assert rows.eps.tolist() == eps


def test_chosen_and_rejected_are_found_by_their_places_among_all_samples(plain: Policy) -> None:
    samples = table((1, "w3", ["w4", "w5", "w6", "w7"])).with_columns(
        chosen=pl.lit(2, pl.Int16), rejected=pl.Series([[1]], dtype=pl.List(pl.Int16)),
        smoothing=pl.Series([[0.0]]), rewards=pl.Series([[0.2, 0.1, 0.9, 0.3]]),
    )  # fmt: skip
    rows = encode_pairs(samples, plain, 64)
    assert (rows.chosen, rows.rejected) == ([[6, 1]], [[[5, 1]]])


def test_pairs_with_different_numbers_of_rejected_are_refused(plain: Policy) -> None:
    mixed = pl.concat([make_pairs(1, n_rejected=2), make_pairs(1, n_rejected=3)])
    with pytest.raises(BadInputError, match="same number of rejected"):
        encode_pairs(mixed, plain, 64)


def test_a_missing_column_is_named(plain: Policy) -> None:
    with pytest.raises(BadInputError, match="chosen missing"):
        encode_pairs(make_pairs(2).drop("chosen"), plain, 64)


def test_a_user_is_held_out_whoever_else_is_there() -> None:
    users = np.arange(500, 900)
    before = held_out(users, 0.25, seed=5)
    assert 60 < before.sum() < 140  # 100 expected, standard deviation 8.7
    more = np.concatenate([np.arange(200), users[::-1]])
    after = held_out(more, 0.25, seed=5)
    assert after[200:][::-1].tolist() == before.tolist()
    assert held_out(users, 0.25, seed=6).tolist() != before.tolist()


def test_all_pairs_of_a_user_are_on_the_same_side() -> None:
    users = np.repeat(np.arange(50), 4)
    held = held_out(users, 0.3, seed=0).reshape(50, 4)
    assert (held.any(1) == held.all(1)).all()
    assert 0 < held[:, 0].sum() < 50


@pytest.mark.parametrize("share", [0.001, 0.89])
def test_both_sides_have_someone(share: float) -> None:
    for seed in range(20):
        held = held_out(np.array([4, 9]), share, seed)
        assert held.sum() == 1


def test_one_user_is_too_few() -> None:
    with pytest.raises(UserError, match="two users or more"):
        held_out(np.array([4, 4]), 0.5, 0)


def test_pairs_that_are_all_too_long_are_refused_with_the_setting_that_says_so(
    plain: Policy,
) -> None:
    rows = encode_pairs(make_pairs(5, n_rejected=2), plain, max_length=3)
    assert rows.eps.shape == (0, 2)
    told = r"0 pairs only.*\(left out: too_long: 5\): raise alignment\.max_length \(now 3 tokens\)"
    with pytest.raises(UserError, match=told):
        require_pairs(rows, max_length=3)


def test_many_pairs_that_are_too_long_are_told(
    plain: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = make_pairs(40)
    lengths = np.sort(encode_pairs(pairs, plain, 64).lengths)  # of both completions: an upper bound
    require_pairs(encode_pairs(pairs, plain, int(lengths[-1])), int(lengths[-1]))
    assert not caplog.text
    shorter = encode_pairs(pairs, plain, 10)
    require_pairs(shorter, 10)
    n = shorter.left_out["too_long"]
    assert n > 4
    assert f"{n} of 40 prompts are left out, as they have more than 10 tokens" in caplog.text


def test_an_epochs_order_is_a_permutation_known_from_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(10, 90, 203)
    order = LengthGroupedOrder(lengths, 8, seed=1)
    first = list(order)
    assert sorted(first) == list(range(203))
    again = LengthGroupedOrder(lengths, 8, seed=1)
    again.set_epoch(1)
    second = list(again)
    assert sorted(second) == list(range(203))
    assert second != first
    again.set_epoch(0)
    assert list(again) == first


def test_batches_hold_similar_lengths_and_come_in_mixed_order() -> None:
    lengths = np.random.default_rng(0).integers(10, 90, 803)
    order = np.array(list(LengthGroupedOrder(lengths, 8, seed=1)))
    batches = lengths[order[:800]].reshape(100, 8)
    padded = (batches.max(1, keepdims=True) - batches).mean()
    shuffled = np.random.default_rng(1).permutation(lengths)[:800].reshape(100, 8)
    assert padded < 0.15 * (shuffled.max(1, keepdims=True) - shuffled).mean()
    assert abs(np.corrcoef(batches.mean(1), np.arange(100))[0, 1]) < 0.3
