"""Preference losses against numbers computed by hand and facts in closed form."""

import math

import pytest
import torch

from recalign.alignment import losses
from recalign.alignment.losses import Objective, Scores, preference_loss
from recalign.config.alignment import Loss

CHOSEN = torch.tensor([1.0, -2.0])
REJECTED = torch.tensor([[0.0, 2.0], [-2.5, -1.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_dpo_averages_the_pairwise_loss_over_the_rejected() -> None:
    # beta h = .5 * (1, -1) and .5 * (.5, -1); -log sigma(x) = log(1 + e^-x)
    expected = [
        (softplus(-0.5) + softplus(0.5)) / 2,
        (softplus(-0.25) + softplus(0.5)) / 2,
    ]
    assert losses.dpo(CHOSEN, REJECTED, 0.5).tolist() == pytest.approx(expected)


def test_dpo_of_equal_ratios_is_log_two() -> None:
    assert losses.dpo(torch.zeros(1), torch.zeros(1, 1), 0.1).item() == pytest.approx(math.log(2))


def test_rosepo_is_dpo_without_smoothing_and_weighs_both_sides_with_it() -> None:
    none = torch.zeros(2, 2)
    assert torch.equal(
        losses.rosepo(CHOSEN, REJECTED, none, 0.5), losses.dpo(CHOSEN, REJECTED, 0.5)
    )
    one = losses.rosepo(torch.tensor([3.0]), torch.tensor([[1.0]]), torch.tensor([[0.2]]), 1.0)
    assert one.item() == pytest.approx(0.8 * softplus(-2) + 0.2 * softplus(2))


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.45])
def test_rosepo_is_flat_at_the_margin_logit_of_one_minus_eps(eps: float) -> None:
    margin = math.log((1 - eps) / eps)  # beta h, with beta = 0.5
    chosen = torch.tensor([margin / 0.5], dtype=torch.float64, requires_grad=True)
    smoothing = torch.full((1, 1), eps, dtype=torch.float64)
    losses.rosepo(chosen, torch.zeros(1, 1, dtype=torch.float64), smoothing, 0.5).sum().backward()
    assert chosen.grad is not None
    assert abs(chosen.grad.item()) < 1e-12


def test_rosepo_gradient_is_sigma_of_minus_beta_h_less_eps() -> None:
    beta, eps, h = 0.7, 0.3, -1.2
    chosen = torch.tensor([h], dtype=torch.float64, requires_grad=True)
    smoothing = torch.full((1, 1), eps, dtype=torch.float64)
    losses.rosepo(chosen, torch.zeros(1, 1, dtype=torch.float64), smoothing, beta).sum().backward()
    in_beta_h = -(1 / (1 + math.exp(beta * h)) - eps)
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(beta * in_beta_h)


def test_rdpo_is_unbiased_when_labels_flip_with_probability_eps() -> None:
    eps = torch.full((2, 2), 0.3)
    kept = losses.rdpo(CHOSEN, REJECTED, eps, 0.5)
    flipped = losses.rdpo(-CHOSEN, -REJECTED, eps, 0.5)
    clean = losses.dpo(CHOSEN, REJECTED, 0.5)
    assert (0.7 * kept + 0.3 * flipped).tolist() == pytest.approx(clean.tolist())


def test_rdpo_caps_eps_below_one_half() -> None:
    beyond, cap = torch.full((2, 2), 0.5), torch.full((2, 2), losses.RDPO_EPS_CAP)
    value = losses.rdpo(CHOSEN, REJECTED, beyond, 0.5)
    assert torch.equal(value, losses.rdpo(CHOSEN, REJECTED, cap, 0.5))


def test_ipo_squares_the_gap_of_ratios_per_token() -> None:
    value = losses.ipo(
        torch.tensor([3.0]), torch.tensor([[1.0]]), torch.tensor([2]), torch.tensor([[4]]), 0.5
    )
    assert value.item() == pytest.approx((3 / 2 - 1 / 4 - 1 / (2 * 0.5)) ** 2)


def test_sdpo_with_one_rejected_is_dpo() -> None:
    one = REJECTED[:, :1]
    expected = losses.dpo(CHOSEN, one, 0.5).tolist()
    assert losses.sdpo(CHOSEN, one, 0.5).tolist() == pytest.approx(expected)


def test_sdpo_is_the_cross_entropy_of_the_chosen_among_all() -> None:
    beta, rejected = 0.5, [0.0, 2.0, -1.0]
    weights = [math.exp(beta * r) for r in [1.0, *rejected]]
    value = losses.sdpo(torch.tensor([1.0]), torch.tensor([rejected]), beta)
    assert value.item() == pytest.approx(-math.log(weights[0] / sum(weights)))


def test_dmpo_takes_the_mean_of_the_rejected() -> None:
    value = losses.dmpo(torch.tensor([1.0]), torch.tensor([[0.0, 2.0, -5.0]]), 0.5)
    assert value.item() == pytest.approx(softplus(-0.5 * (1 - (0 + 2 - 5) / 3)))


def test_simpo_compares_log_probabilities_per_token_against_a_margin() -> None:
    counts = torch.tensor([4]), torch.tensor([[2]])
    value = losses.simpo(torch.tensor([-6.0]), torch.tensor([[-5.0]]), *counts, 2.0, 0.5)
    assert value.item() == pytest.approx(softplus(-(2 * (-6 / 4 + 5 / 2) - 0.5)))


def scores(shift: float = 0.0) -> Scores:
    return Scores(
        chosen=torch.tensor([-4.0, -7.0]),
        rejected=torch.tensor([[-6.0, -5.0], [-3.0, -9.0]]),
        reference_chosen=torch.tensor([-5.0, -5.0]) + shift,
        reference_rejected=torch.tensor([[-6.0, -7.0], [-0.5, -8.0]]) + shift,
        chosen_tokens=torch.tensor([2, 4]),
        rejected_tokens=torch.tensor([[3, 2], [1, 4]]),
        eps=torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
    )


def test_preference_loss_hands_each_loss_the_ratios_and_its_constants() -> None:
    s = scores()
    chosen, rejected = CHOSEN, torch.tensor([[0.0, 2.0], [-2.5, -1.0]])  # by subtraction above
    counts = s.chosen_tokens, s.rejected_tokens
    expected: dict[Loss, torch.Tensor] = {
        "dpo": losses.dpo(chosen, rejected, 0.3),
        "rosepo": losses.rosepo(chosen, rejected, s.eps, 0.3),
        "cdpo": losses.rosepo(chosen, rejected, torch.full((2, 2), 0.25), 0.3),
        "rdpo": losses.rdpo(chosen, rejected, s.eps, 0.3),
        "ipo": losses.ipo(chosen, rejected, *counts, 0.3),
        "sdpo": losses.sdpo(chosen, rejected, 0.3),
        "dmpo": losses.dmpo(chosen, rejected, 0.3),
        "simpo": losses.simpo(s.chosen, s.rejected, *counts, 0.3, 1.5),
        "nll": torch.tensor([4.0 / 2, 7.0 / 4]),
    }
    for name, value in expected.items():
        found = preference_loss(Objective(name, beta=0.3, gamma=1.5, constant_eps=0.25), s)
        assert found.tolist() == pytest.approx(value.tolist()), name


def test_only_simpo_ignores_how_the_reference_separates_a_pair() -> None:
    one_sided = scores()
    one_sided.reference_chosen.sub_(1.0)
    for name in ("dpo", "rosepo", "cdpo", "rdpo", "ipo", "sdpo", "dmpo", "simpo"):
        objective = Objective(name)
        moved = not torch.equal(
            preference_loss(objective, scores()), preference_loss(objective, one_sided)
        )
        assert moved == (name != "simpo"), name
