"""Group-relative policy optimisation: pure functions of log-probabilities, token by token.

Notation: B prompts with S completions of L tokens at most; A_i is the advantage of completion i
over the others of its prompt, rho = pi / pi_old the ratio to the policy that wrote it. GRPO
(DeepSeekMath, 2402.03300), with the corrections of Dr. GRPO (2503.20783) and DAPO (2503.14476).
"""

from typing import Literal

import torch
from torch import Tensor

from recalign.alignment.forward import tokens_present


def advantages(rewards: Tensor, present: Tensor, *, scaled: bool) -> Tensor:
    """A_i = (r_i - mean r) / std r over the `present` [B, S] of a prompt, 0 elsewhere; [B, S].

    std is that of a sample (divided by S - 1, as TRL has it). Not `scaled`, A_i = r_i - mean r: Dr.
    GRPO, since division by std favours prompts whose rewards hardly differ.
    """
    n = present.sum(1, keepdim=True)
    centred = (rewards - (rewards * present).sum(1, keepdim=True) / n) * present
    if not scaled:
        return centred
    return centred / (centred.square().sum(1, keepdim=True) / (n - 1)).sqrt()


def clipped_surrogate(
    tokens: Tensor, sampling: Tensor, advantage: Tensor, low: float, high: float
) -> Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) of every token, A [B, S]; returns [B, S, L].

    DAPO lets `high` exceed `low`, so that what was improbable can still become likely.
    """
    ratio, advantage = (tokens - sampling).exp(), advantage[:, :, None]
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def is_clipped(
    tokens: Tensor, sampling: Tensor, advantage: Tensor, low: float, high: float
) -> Tensor:
    """Which tokens have no gradient of the surrogate any more, bool [B, S, L]."""
    ratio, advantage = (tokens - sampling).exp(), advantage[:, :, None]
    return ((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))


def k3(tokens: Tensor, reference: Tensor) -> Tensor:
    """pi_ref / pi - log(pi_ref / pi) - 1 of every token: never negative, and for tokens that pi
    draws its mean is KL(pi, pi_ref) (J. Schulman, "Approximating KL divergence"). [B, S, L].

    For tokens that pi_old drew, rho k3 has that mean and its gradient (DeepSeek-V3.2, 2512.02556).
    """
    gap = reference - tokens
    return gap.exp() - gap - 1


def token_mean(
    values: Tensor,
    lengths: Tensor,
    over: Literal["completion", "prompt", "constant"],
    longest: int,
) -> Tensor:
    """One value per prompt, [B], of token values [B, S, L] of completions of `lengths` [B, S].

    completion: mean over a completion's tokens, then over completions (GRPO). prompt: mean over all
    tokens of the prompt's completions (DAPO). constant: sum over tokens / `longest`, mean over
    completions (Dr. GRPO: a long completion is neither spared nor preferred).
    """
    summed = (values * tokens_present(lengths)).sum(2)  # [B, S]
    n = (lengths > 0).sum(1)
    match over:
        case "completion":
            return (summed / lengths.clamp(min=1)).sum(1) / n
        case "prompt":
            return summed.sum(1) / lengths.sum(1)
        case "constant":
            return summed.sum(1) / (n * longest)


def reward_gain(log_ratios: Tensor, rewards: Tensor, present: Tensor) -> Tensor:
    """sum_i w_i r_i - mean r, w_i proportional to pi(y_i) / pi_old(y_i): what a policy would earn
    on these samples above the one that wrote them (self-normalised importance weights); [B].
    """
    weights = log_ratios.masked_fill(~present, -torch.inf).softmax(1)
    mean = (rewards * present).sum(1) / present.sum(1)
    return (weights * rewards).sum(1) - mean
