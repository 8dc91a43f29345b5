"""GRPO's parts against numbers computed by hand, bandits in closed form, and TRL's own loss."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import GRPOConfig as TrlConfig
from trl import GRPOTrainer

from recalign.alignment import losses
from recalign.alignment.forward import token_log_probs
from recalign.alignment.groups import by_rank
from recalign.alignment.grpo import (
    advantages,
    clipped_surrogate,
    is_clipped,
    k3,
    reward_gain,
    token_mean,
)
from recalign.alignment.listwise import plackett_luce
from recalign.alignment.objective import GroupScores, group_loss
from recalign.config import AlignmentConfig, GRPOConfig
from recalign.training.packing import PackedRow, pack


def test_advantages_are_rewards_above_the_mean_in_standard_deviations() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [5.0, 1.0, 9.0]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    # Means 3 and 3; squares 4 + 1 + 9 = 14 over 2, and 4 + 4 over 1.
    expected = [
        [-2 / math.sqrt(7), -1 / math.sqrt(7), 3 / math.sqrt(7)],
        [2 / 8**0.5, -2 / 8**0.5, 0],
    ]
    found = advantages(rewards, present, scaled=True)
    torch.testing.assert_close(found, torch.tensor(expected))
    centred = advantages(rewards, present, scaled=False)
    assert centred.tolist() == [[-2.0, -1.0, 3.0], [2.0, -2.0, 0.0]]


def test_the_surrogate_is_clipped_on_the_side_where_it_would_gain() -> None:
    ratio = torch.tensor([[[0.5, 1.1, 1.5]], [[0.5, 1.1, 1.5]]]).log()
    advantage = torch.tensor([[2.0], [-2.0]])
    given = (ratio, torch.zeros_like(ratio), advantage, 0.2, 0.28)
    # A > 0: min(2 rho, 2 clip); A < 0: the larger ratio of the two counts.
    expected = torch.tensor([[[-1.0, -2.2, -2.56]], [[1.6, 2.2, 3.0]]])
    torch.testing.assert_close(clipped_surrogate(*given), expected)
    assert is_clipped(*given).tolist() == [[[False, False, True]], [[True, False, False]]]


def test_k3_is_zero_at_the_reference_and_never_negative() -> None:
    tokens, reference = torch.tensor([[[-1.0, -2.0]]]), torch.tensor([[[-1.0, -1.0]]])
    assert k3(tokens, reference).tolist() == [[[0.0, pytest.approx(math.e - 2)]]]
    assert (k3(tokens, tokens + torch.linspace(-3, 3, 7)[:, None, None]) >= 0).all()


def test_k3_estimates_the_divergence_from_the_reference() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    values = k3(policy.log()[None, None], reference.log()[None, None])[0, 0]
    exact = (policy * (policy / reference).log()).sum()
    assert (policy * values).sum().item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_three_means_weigh_tokens_as_their_papers_do() -> None:
    values = torch.tensor([[[1.0, 2.0, 3.0], [8.0, 9.0, 9.0], [9.0, 9.0, 9.0]]])
    lengths = torch.tensor([[3, 1, 0]])  # the rest is padding
    over_completions = token_mean(values, lengths, "completion", 5)
    over_prompts = token_mean(values, lengths, "prompt", 5)
    over_a_constant = token_mean(values, lengths, "constant", 5)
    assert over_completions.tolist() == [pytest.approx((2.0 + 8.0) / 2)]
    assert over_prompts.tolist() == [pytest.approx((6.0 + 8.0) / 4)]
    assert over_a_constant.tolist() == [pytest.approx((6.0 + 8.0) / (2 * 5))]


def test_reward_gain_weighs_samples_by_how_probable_they_became() -> None:
    moved = torch.tensor([[math.log(3), 0.0, 50.0]])
    present = torch.tensor([[True, True, False]])
    gain = reward_gain(moved, torch.tensor([[1.0, 0.0, 9.0]]), present)
    assert gain.item() == pytest.approx(3 / 4 - 1 / 2)


def test_titles_that_the_policy_wrongly_finds_probable_lose_most() -> None:
    # Ranks by likelihood: the second title 1, the chosen one 2, the last 3.
    rewards = by_rank([-2.0, -1.0, -5.0], chosen=0)
    weights = [1 / math.log2(2), 1 / math.log2(4)]
    shares = [-weight / sum(weights) for weight in weights]
    assert rewards == [1.0, pytest.approx(shares[0]), pytest.approx(shares[1])]


def descend(loss: Callable[[Tensor], Tensor], high: float = 8.0) -> float:
    """Where gradient descent from 0 comes to rest: the loss falls up to there and no further."""
    low = 0.0
    for _ in range(50):
        theta = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(theta), theta)
        low, high = (theta.item(), high) if slope < 0 else (low, theta.item())
    return low


def arms(theta: Tensor) -> Tensor:
    """log pi of the two arms of a bandit, of one token each, [1, 2, 1]."""
    return torch.stack([theta, -theta]).sigmoid().log()[None, :, None]


def bandit(settings: GRPOConfig) -> Callable[[Tensor], Tensor]:
    """GRPO's loss for a bandit whose arms earn 1 and 0; a fair coin wrote both and is reference."""
    coin = torch.full((1, 2, 1), 0.5, dtype=torch.float64).log()
    config = AlignmentConfig(optimiser="grpo", grpo=settings)

    def loss(theta: Tensor) -> Tensor:
        lengths, rewards = torch.tensor([[1, 1]]), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        return group_loss(
            config,
            GroupScores(arms(theta), coin, coin, lengths, rewards, torch.tensor([0]), longest=1),
        ).sum()

    return loss


def probability(theta: float) -> float:
    """Of the first arm."""
    return 1 / (1 + math.exp(-theta))


def test_a_bandit_moves_until_both_arms_are_clipped() -> None:
    theta = descend(bandit(GRPOConfig(clip_low=0.2, clip_high=0.2, kl_weight=0)))
    assert probability(theta) == pytest.approx(0.6)  # 1.2 * .5 and .8 * .5


UNCLIPPED: dict[str, Any] = {"scale": "none", "clip_low": 0.99, "clip_high": 10, "kl_weight": 0.5}


def test_a_bandit_under_kl_ends_at_the_reference_tilted_by_the_rewards() -> None:
    # pi* is proportional to pi_ref exp(r / beta), of rewards 1 and 0.
    theta = descend(bandit(GRPOConfig(**UNCLIPPED)))
    assert theta == pytest.approx(1 / 0.5, abs=1e-6)


def test_without_correction_the_divergence_of_a_bandit_pulls_by_another_amount() -> None:
    # Advantages +-1/2: the loss is 1/2 - p + beta/2 [k3(p) + k3(1 - p)], whose derivative is
    # -1 + beta/2 (p - 1/2) [1/p^2 + 1/(1 - p)^2].
    p = probability(descend(bandit(GRPOConfig(**UNCLIPPED, kl_corrected=False))))
    assert 0.25 * (p - 0.5) * (1 / p**2 + 1 / (1 - p) ** 2) == pytest.approx(1, abs=1e-6)


def test_the_first_step_is_that_of_reinforce_with_a_baseline() -> None:
    theta = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    bandit(GRPOConfig(scale="none"))(theta).backward()
    # -mean_i A_i d log pi(a_i) / d theta = -(1/2 * 1/2 + (-1/2) * (-1/2)) / 2
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(-0.25)


@pytest.mark.parametrize("ranking", ["dpo", "plackett_luce"])
def test_a_bandit_of_noisy_preferences_ends_at_their_log_odds(ranking: str) -> None:
    beta, preferred = 0.5, 0.8

    def loss(theta: Tensor) -> Tensor:
        ratios = arms(theta)[..., 0] - math.log(0.5)
        if ranking == "dpo":
            right = losses.dpo(ratios[:, 0], ratios[:, 1:], beta)
            wrong = losses.dpo(ratios[:, 1], ratios[:, :1], beta)
        else:
            both = torch.ones(1, 2, dtype=torch.bool)
            earned = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
            right = plackett_luce(ratios, earned, both, beta)
            wrong = plackett_luce(ratios, earned.flip(1), both, beta)
        return (preferred * right + (1 - preferred) * wrong).sum()

    # beta h = logit(.8), and h = log p - log(1 - p) = theta.
    assert beta * descend(loss) == pytest.approx(math.log(0.8 / 0.2), abs=1e-6)


PROMPTS = [[5, 6, 7, 8], [9, 10]]
TEXTS = [[[11, 12, 1], [13, 1], [14, 15, 16, 1]], [[17, 1], [18, 19, 20, 1], [21, 22, 1]]]
REWARDS = torch.tensor([[0.3, -0.2, 0.9], [1.0, 0.5, 0.4]])


def padded(lists: list[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and mask of sequences, padded on one side."""
    width = max(map(len, lists))
    rows = [(0, width - len(ids)) if not left else (width - len(ids), 0) for ids in lists]
    ids = [[0] * a + own + [0] * b for (a, b), own in zip(rows, lists, strict=True)]
    mask = [[0] * a + [1] * len(own) + [0] * b for (a, b), own in zip(rows, lists, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def unrewarded(completions: list[str], **_: Any) -> list[float | None]:
    """A reward that GRPOTrainer asks for and does not use here."""
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("settings", "loss_type", "n_prompts"),
    [
        (GRPOConfig(kl_weight=0.3), "grpo", 2),
        (GRPOConfig(kl_weight=0.3, kl_corrected=False), "grpo", 2),
        (GRPOConfig(kl_weight=0, scale="none", mean="constant"), "dr_grpo", 2),
        (GRPOConfig(kl_weight=0.1, clip_high=0.28, mean="prompt"), "dapo", 1),
    ],
    ids=["grpo", "grpo as published", "dr_grpo", "dapo"],
)
def test_loss_and_gradient_are_those_of_trl(
    settings: GRPOConfig,
    loss_type: str,
    n_prompts: int,
    tiny_llama: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    random = torch.Generator().manual_seed(2)
    prompts, texts, rewards = PROMPTS[:n_prompts], TEXTS[:n_prompts], REWARDS[:n_prompts]
    lengths = torch.tensor([[len(text) for text in own] for own in texts])
    present = torch.arange(4) < lengths[:, :, None]
    batch = vars(pack([PackedRow(*row) for row in zip(prompts, texts, strict=True)]))
    tiny_llama.eval()
    tokens = token_log_probs(tiny_llama, batch)
    sampling, reference = (
        (tokens.detach() + torch.randn(present.shape, generator=random) * 0.3) * present
        for _ in range(2)
    )
    config = AlignmentConfig(optimiser="grpo", grpo=settings)
    chosen = rewards.argmax(1)
    ours = group_loss(
        config, GroupScores(tokens, reference, sampling, lengths, rewards, chosen, longest=6)
    ).mean()
    ours.backward()
    gradients = {n: p.grad.clone() for n, p in tiny_llama.named_parameters() if p.grad is not None}
    tiny_llama.zero_grad()

    args = TrlConfig(
        output_dir=str(tmp_path / "theirs"), loss_type=loss_type, beta=settings.kl_weight,
        epsilon=settings.clip_low, epsilon_high=settings.clip_high, num_generations=3,
        per_device_train_batch_size=3, max_completion_length=6, use_cpu=True, bf16=False,
        use_bias_correction_kl=settings.kl_corrected, report_to="none",
    )  # fmt: skip
    trainer = GRPOTrainer(
        tiny_llama, reward_funcs=unrewarded, args=args,
        train_dataset=Dataset.from_list([{"prompt": "w3"}] * 3), processing_class=tokenizer,
    )  # fmt: skip
    prompt_ids, prompt_mask = padded([p for p in prompts for _ in range(3)], left=True)
    completion_ids, completion_mask = padded([t for own in texts for t in own], left=False)
    given = advantages(rewards, lengths > 0, scaled=settings.scale == "std")
    theirs = trainer._compute_loss(
        tiny_llama.eval(),
        {
            "prompt_ids": prompt_ids, "prompt_mask": prompt_mask,
            "completion_ids": completion_ids, "completion_mask": completion_mask,
            "advantages": given.flatten(), "old_per_token_logps": sampling.flatten(0, 1),
            "ref_per_token_logps": reference.flatten(0, 1),
            "num_items_in_batch": completion_mask.sum(),
        },
    )  # fmt: skip
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for name, parameter in tiny_llama.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
