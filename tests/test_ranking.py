"""Ranks of targets against a slow, plain definition, and the edge cases by hand."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from recalign import ranking
from recalign.ranking import largest, target_ranks, top_items


def plain_ranks(scores: np.ndarray, targets: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Sort each row's items downwards; at equal score non-targets first, then targets in order."""
    ranks = np.zeros(targets.shape, dtype=np.int64)
    for row, wanted in enumerate(targets.tolist()):
        places = {item: wanted.index(item) + 1 for item in wanted if item}
        hidden = set(seen[row].tolist()) - set(places)
        items = [item for item in range(1, scores.shape[1]) if item not in hidden]
        items.sort(key=lambda item: (-scores[row, item], places.get(item, 0)))
        for item, place in places.items():
            ranks[row, place - 1] = items.index(item) + 1
    return ranks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_ranks_equal_a_plain_sort_on_random_rows_full_of_ties(dtype: torch.dtype) -> None:
    draws = np.random.default_rng(0)
    for _ in range(60):
        n, items, wanted, taken = draws.integers([1, 3, 1, 1], [7, 30, 6, 9])
        scores = torch.tensor(draws.integers(-4, 5, (n, items + 1))).to(dtype)
        if dtype.is_floating_point:
            scores[0, 1:3] = torch.tensor([torch.inf, -torch.inf])
        targets = draws.integers(0, items + 1, (n, wanted))
        seen = draws.integers(0, items + 1, (n, taken))
        found = target_ranks(scores, torch.tensor(targets), torch.tensor(seen))
        expected = plain_ranks(scores.double().numpy(), targets, seen)
        np.testing.assert_array_equal(found.numpy(), expected)


def test_a_constant_scorer_ranks_its_only_target_last() -> None:
    # Nine items, item 4 seen: eight are shown, and all of them tie.
    ranks = target_ranks(torch.zeros(1, 10), torch.tensor([[7]]), torch.tensor([[4]]))
    assert ranks.tolist() == [[8]]


def test_tied_targets_take_the_last_places_one_each() -> None:
    ranks = target_ranks(torch.zeros(1, 10), torch.tensor([[7, 2, 0]]), torch.tensor([[0]]))
    assert ranks.tolist() == [[8, 9, 0]]


def test_seen_items_do_not_rank_unless_they_are_targets() -> None:
    scores = torch.tensor([[99.0, 5.0, 4.0, 3.0, 2.0]])
    seen = torch.tensor([[1, 2]])
    assert target_ranks(scores, torch.tensor([[3]]), seen).tolist() == [[1]]
    assert target_ranks(scores, torch.tensor([[4, 1]]), seen).tolist() == [[3, 1]]


def test_a_repeated_target_counts_at_its_first_place_only() -> None:
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    ranks = target_ranks(scores, torch.tensor([[2, 2, 3]]), torch.tensor([[0]]))
    assert ranks.tolist() == [[2, 0, 3]]


def test_ranks_do_not_depend_on_how_rows_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    scores = torch.randn(50, 41)
    targets, seen = torch.randint(0, 41, (50, 3)), torch.randint(0, 41, (50, 10))
    whole, best = target_ranks(scores, targets, seen), top_items(scores, seen, 7)
    monkeypatch.setattr(ranking, "CHUNK_ELEMENTS", 100)
    assert torch.equal(target_ranks(scores, targets, seen), whole)
    assert torch.equal(top_items(scores, seen, 7), best)


class Compared(TorchFunctionMode):
    """Counts the scores that are compared with a target's."""

    n = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.ge:
            self.n += args[0].numel()
        return func(*args, **(kwargs or {}))


def test_a_row_with_many_targets_costs_the_others_nothing_and_moves_no_rank() -> None:
    draws = np.random.default_rng(4)
    scores = torch.tensor(draws.integers(0, 20, (40, 101))).float()
    targets = torch.zeros(40, 60, dtype=torch.int64)
    targets[:, 0] = torch.tensor(draws.integers(1, 101, 40))
    targets[7, 5:50] = torch.tensor(draws.integers(1, 101, 45))
    targets[21] = 0
    seen = torch.tensor(draws.integers(0, 101, (40, 9)))
    with Compared() as compared:
        found = target_ranks(scores, targets, seen)
    assert compared.n == (38 + 50) * 101  # a score of each item, for each place up to the last
    np.testing.assert_array_equal(
        found.numpy(), plain_ranks(scores.numpy(), targets.numpy(), seen.numpy())
    )


def test_a_nan_score_raises_but_not_in_the_padding_column() -> None:
    scores = torch.zeros(3, 5)
    scores[:, 0] = torch.nan
    target_ranks(scores, torch.ones(3, 1, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))
    scores[1, 4] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        target_ranks(
            scores, torch.ones(3, 1, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64)
        )
    with pytest.raises(ValueError, match="NaN"):
        top_items(scores, torch.zeros(3, 1, dtype=torch.int64), 2)


def test_rows_that_do_not_fit_raise() -> None:
    one = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="rows differ"):
        target_ranks(torch.zeros(2, 4), one, one[:1])


def test_top_items_are_the_best_unseen_and_zero_where_none_is_left() -> None:
    scores = torch.tensor([[9.0, 1.0, 4.0, 3.0, 2.0], [9.0, 4.0, 3.0, 2.0, 1.0]])
    seen = torch.tensor([[2, 0, 0], [1, 2, 4]])
    assert top_items(scores, seen, 3).tolist() == [[3, 4, 1], [3, 0, 0]]
    assert top_items(scores, seen, 100).shape == (2, 4)


@pytest.mark.parametrize("width", [1001, 2 * 1024 + 1])
def test_a_wide_row_read_by_groups_has_the_items_of_a_plain_sort(width: int) -> None:
    draws = np.random.default_rng(1)
    scores = torch.tensor(np.array([draws.permutation(width) for _ in range(9)])).float()
    scores[1] = torch.arange(width)  # the best stand side by side, beyond the last whole group
    scores[2] = -torch.arange(width)  # ... and at the front
    scores[3, 40:] = -torch.inf
    seen = torch.tensor(draws.integers(0, width, (9, 30)))
    seen[4] = scores[4].topk(30).indices
    given = scores.clone()
    found = top_items(scores, seen, 3)
    for row in range(9):
        hidden = {0, *seen[row].tolist()}
        order = np.argsort(-given[row].numpy(), kind="stable").tolist()
        assert found[row].tolist() == [item for item in order if item not in hidden][:3]
    assert torch.equal(scores, given)


@pytest.mark.parametrize("k", [1, 7, 64, 500])
def test_the_largest_of_a_row_are_found_block_by_block(k):
    logits = torch.randn(5, 20_011, generator=torch.Generator().manual_seed(1))
    values, tokens = largest(logits, k)
    expected = logits.topk(k)
    assert torch.equal(values, expected.values)
    assert torch.equal(tokens, expected.indices)
