"""Listwise losses against numbers computed by hand, and what ties and absent completions do."""

import math

import pytest
import torch

from recalign.alignment import losses
from recalign.alignment.listwise import best_against_all, plackett_luce

RATIOS = torch.tensor([[0.5, 2.0, -1.0]])
REWARDS = torch.tensor([[0.3, 0.1, 0.9]])  # the third is best, then the first
ALL = torch.ones(1, 3, dtype=torch.bool)
BEST = torch.tensor([2])


def test_best_against_all_is_the_softmax_of_the_best_among_all() -> None:
    # beta r = .25, 1, -.5
    expected = -math.log(math.exp(-0.5) / (math.exp(0.25) + math.exp(1.0) + math.exp(-0.5)))
    found = best_against_all(RATIOS, REWARDS, BEST, ALL, 0.5)
    assert found.item() == pytest.approx(expected)


def test_plackett_luce_draws_the_best_and_then_the_best_of_the_rest() -> None:
    first = -math.log(math.exp(-0.5) / (math.exp(0.25) + math.exp(1.0) + math.exp(-0.5)))
    second = -math.log(math.exp(0.25) / (math.exp(0.25) + math.exp(1.0)))
    found = plackett_luce(RATIOS, REWARDS, ALL, 0.5)
    assert found.item() == pytest.approx(first + second)


def test_with_two_completions_both_are_dpo() -> None:
    ratios, rewards = torch.tensor([[0.4, -0.7]]), torch.tensor([[1.0, 2.0]])
    present, chosen = torch.ones(1, 2, dtype=torch.bool), torch.tensor([1])
    expected = losses.dpo(ratios[:, 1], ratios[:, :1], 0.3)
    torch.testing.assert_close(best_against_all(ratios, rewards, chosen, present, 0.3), expected)
    torch.testing.assert_close(plackett_luce(ratios, rewards, present, 0.3), expected)


def test_absent_completions_change_neither_loss_nor_gradient() -> None:
    found = []
    for pad in (0, 2):
        ratios = torch.cat([RATIOS, torch.full((1, pad), 7.0)], 1).requires_grad_()
        rewards = torch.cat([REWARDS, torch.zeros(1, pad)], 1)
        present = torch.arange(3 + pad)[None] < 3
        loss = best_against_all(ratios, rewards, BEST, present, 0.5)
        loss = loss + plackett_luce(ratios, rewards, present, 0.5)
        loss.sum().backward()
        assert ratios.grad is not None
        assert ratios.grad[:, 3:].abs().sum() == 0
        found.append((loss.item(), ratios.grad[:, :3].tolist()))
    assert found[0] == found[1]


def test_equal_rewards_are_not_preferred_to_one_another() -> None:
    # Two share the best place; of the two that share the last one nothing is asked.
    ratios = torch.tensor([[0.1, -0.4, 0.8, 0.3]], requires_grad=True)
    rewards = torch.tensor([[2.0, 2.0, 1.0, 1.0]])
    present = torch.ones(1, 4, dtype=torch.bool)
    total = sum(math.exp(r) for r in (0.1, -0.4, 0.8, 0.3))
    expected = -(0.1 - math.log(total)) - (-0.4 - math.log(total))
    loss = plackett_luce(ratios, rewards, present, 1.0)
    assert loss.item() == pytest.approx(expected)
    best = best_against_all(ratios, rewards, torch.tensor([0]), present, 1.0)
    three = math.exp(0.1) + math.exp(0.8) + math.exp(0.3)
    assert best.item() == pytest.approx(-math.log(math.exp(0.1) / three))


def test_the_order_in_which_completions_stand_does_not_matter() -> None:
    turned = torch.tensor([2, 0, 1])
    again = plackett_luce(RATIOS[:, turned], REWARDS[:, turned], ALL, 0.5)
    torch.testing.assert_close(again, plackett_luce(RATIOS, REWARDS, ALL, 0.5))
