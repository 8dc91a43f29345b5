"""Losses against their plain definitions, in value and gradient."""

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recalign.oracle.fused import fused_cross_entropy
from recalign.oracle.losses import bce, full_softmax, gbce, sampled_softmax


def problem(n: int, n_items: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random states, item matrix, bias and targets 1..n_items, ready for gradients."""
    draws = torch.Generator().manual_seed(0)
    states = torch.randn(n, 8, generator=draws, dtype=dtype).requires_grad_()
    matrix = (torch.randn(n_items + 1, 8, generator=draws, dtype=dtype) * 0.5).requires_grad_()
    bias = torch.randn(n_items + 1, generator=draws, dtype=dtype).requires_grad_()
    return states, matrix, bias, torch.randint(1, n_items + 1, (n,), generator=draws)


def gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    return [loss(*inputs).detach(), *torch.autograd.grad(loss(*inputs), inputs)]


def test_the_fused_gradient_passes_gradcheck() -> None:
    states, matrix, bias, targets = problem(6, 9, torch.float64)

    def loss(states: Tensor, items: Tensor, bias: Tensor) -> Tensor:
        return fused_cross_entropy(states, items, bias, targets, torch.float64)

    assert torch.autograd.gradcheck(loss, (states, matrix, bias))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_full_softmax_equals_cross_entropy_over_many_chunks(
    dtype: torch.dtype, error: float
) -> None:
    states, matrix, bias, targets = problem(1100, 70, torch.float32)
    found = gradients(
        lambda s, m, b: 3 * full_softmax(s, m, b, targets, dtype), states, matrix, bias
    )
    plain = gradients(
        lambda s, m, b: 3 * F.cross_entropy((s @ m.T + b)[:, 1:], targets - 1), states, matrix, bias
    )
    for ours, theirs in zip(found, plain, strict=True):
        assert (ours - theirs).norm() <= error * theirs.norm()
    assert not found[2][0].any(), "the padding item got a gradient"


def test_sampled_softmax_over_all_other_items_once_is_full_softmax() -> None:
    states, matrix, bias, targets = problem(40, 15, torch.float64)
    everything = torch.arange(1, 16)
    none = torch.zeros(16, dtype=torch.float64)
    found = gradients(
        lambda s, m, b: sampled_softmax(s, m, b, targets, everything, none), states, matrix, bias
    )
    plain = gradients(
        lambda s, m, b: F.cross_entropy((s @ m.T + b)[:, 1:], targets - 1), states, matrix, bias
    )
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sampled_softmax_counts_each_repetition_of_a_negative() -> None:
    states, matrix, bias, targets = problem(1100, 40, torch.float64)  # more rows than one chunk
    draws = torch.Generator().manual_seed(1)
    drawn = torch.randint(1, 41, (30,), generator=draws)
    assert len(drawn.unique()) < 30
    shift = torch.rand(41, generator=draws, dtype=torch.float64)
    found = gradients(
        lambda s, m, b: 3 * sampled_softmax(s, m, b, targets, drawn, shift), states, matrix, bias
    )

    def plain(s: Tensor, m: Tensor, b: Tensor) -> Tensor:
        scores = s @ m.T + b
        own = scores.gather(1, targets[:, None])
        others = (scores - shift)[:, drawn].masked_fill(drawn == targets[:, None], -torch.inf)
        return -3 * torch.cat([own, others], 1).log_softmax(1)[:, 0].mean()

    for ours, theirs in zip(found, gradients(plain, states, matrix, bias), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_log_q_correction_undoes_a_skewed_draw() -> None:
    states, matrix, bias, targets = problem(50, 30, torch.float64)
    q = torch.linspace(1, 20, 31, dtype=torch.float64)
    q[0] = 0
    q = q / q.sum()
    n = 50_000
    draws = torch.Generator().manual_seed(1)
    drawn = torch.multinomial(q, n, replacement=True, generator=draws)
    full = F.cross_entropy((states @ matrix.T + bias)[:, 1:], targets - 1).item()
    corrected = sampled_softmax(states, matrix, bias, targets, drawn, (q * n).log()).item()
    flat = torch.full((31,), log(n / 30), dtype=torch.float64)
    uncorrected = sampled_softmax(states, matrix, bias, targets, drawn, flat).item()
    assert corrected == pytest.approx(full, abs=0.01)
    assert abs(uncorrected - full) > 0.03


def log_sigmoid(x: float) -> float:
    return -log(1 + exp(-x))


def test_bce_and_gbce_equal_hand_computed_numbers() -> None:
    states = torch.tensor([[1.0, 2.0]])
    matrix = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.2, -1.0], [0.0, 0.3], [1.0, 1.0]])
    bias = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    # Scores of items 1..4: 2.1, -1.6, 0.9, 3.4; the target is 1.
    one = bce(states, matrix, bias, torch.tensor([1]), torch.tensor([3]))
    assert one.item() == pytest.approx(-log_sigmoid(2.1) - log_sigmoid(-0.9), rel=1e-6)
    # Two negatives of three: a = 2/3, beta = 2/3 (0.75 (1 - 1.5) + 1.5) = 0.75.
    expected = -(0.75 * log_sigmoid(2.1) + log_sigmoid(1.6) + log_sigmoid(-3.4)) / 3
    several = gbce(states, matrix, bias, torch.tensor([1]), torch.tensor([2, 4]), len(matrix) - 1)
    assert several.item() == pytest.approx(expected, rel=1e-6)


def test_a_negative_equal_to_the_target_is_left_out() -> None:
    states, matrix, bias, _ = problem(1, 4, torch.float64)
    target = torch.tensor([2])
    none = torch.zeros(5, dtype=torch.float64)
    with_it = sampled_softmax(states, matrix, bias, target, torch.tensor([2, 3]), none)
    without = sampled_softmax(states, matrix, bias, target, torch.tensor([3]), none)
    assert with_it.item() == without.item()
    positive = -F.logsigmoid(states[0] @ matrix[2] + bias[2]).item()
    assert bce(states, matrix, bias, target, target).item() == pytest.approx(positive)
