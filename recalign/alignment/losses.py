"""Preference losses: pure functions of log-probabilities, one value per pair, the caller averages.

Notation: `beta` > 0; r = log pi(y|x) - log pi_ref(y|x), summed over the tokens of y, is the log
ratio of one completion; h = r_chosen - r_rejected; sigma is the logistic function; eps is the
probability that the rejected completion is really the better one. B pairs, K rejected completions
each: what is defined for one rejected (all but sdpo and dmpo) is averaged over the K.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from recalign.config.alignment import Loss

RDPO_EPS_CAP = 0.45
"""rdpo divides by 1 - 2 eps: above this its gradient is more than ten times dpo's."""


def dpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigma(beta h), of log ratios [B] and [B, K]; returns [B]. DPO (2305.18290)."""
    return -logsigmoid(beta * (chosen[:, None] - rejected)).mean(1)


def rosepo(chosen: Tensor, rejected: Tensor, eps: Tensor, beta: float) -> Tensor:
    """-(1 - eps) log sigma(beta h) - eps log sigma(-beta h), eps [B, K] per pair; returns [B].

    RosePO (2410.12519) with a personal eps, cDPO with a constant one. The gradient in beta h is
    -(sigma(-beta h) - eps), so the optimum is the finite margin beta h = logit(1 - eps).
    """
    scaled = beta * (chosen[:, None] - rejected)
    return (-(1 - eps) * logsigmoid(scaled) - eps * logsigmoid(-scaled)).mean(1)


def rdpo(chosen: Tensor, rejected: Tensor, eps: Tensor, beta: float) -> Tensor:
    """[-(1 - eps) log sigma(beta h) + eps log sigma(-beta h)] / (1 - 2 eps), eps [B, K]; [B].

    Provably Robust DPO (2403.00409): unbiased for the clean loss when labels flip with
    probability eps < 1/2. eps is capped at RDPO_EPS_CAP.
    """
    eps = eps.clamp(max=RDPO_EPS_CAP)
    scaled = beta * (chosen[:, None] - rejected)
    unscaled = -(1 - eps) * logsigmoid(scaled) + eps * logsigmoid(-scaled)
    return (unscaled / (1 - 2 * eps)).mean(1)


def ipo(
    chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, beta: float
) -> Tensor:
    """(h - 1 / (2 beta))^2 with log ratios averaged per token; returns [B]. 2310.12036.

    `chosen_tokens` [B] and `rejected_tokens` [B, K] are token counts.
    """
    gap = (chosen / chosen_tokens)[:, None] - rejected / rejected_tokens
    return (gap - 1 / (2 * beta)).square().mean(1)


def sdpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigma(-log sum_d exp(beta (r_d - r_chosen))) over the K rejected d; returns [B].

    Softmax-DPO (2406.09215); with K = 1 it is dpo.
    """
    return -logsigmoid(-torch.logsumexp(beta * (rejected - chosen[:, None]), 1))


def dmpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigma(beta r_chosen - (beta / K) sum_d r_d); returns [B]. DMPO (2405.16127)."""
    return -logsigmoid(beta * (chosen - rejected.mean(1)))


def nll(chosen: Tensor, chosen_tokens: Tensor) -> Tensor:
    """-log p(chosen) per token, of log-probabilities [B]; returns [B]. Continued fine-tuning."""
    return -chosen / chosen_tokens


def simpo(
    chosen: Tensor,
    rejected: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float,
    gamma: float,
) -> Tensor:
    """-log sigma(beta (mean log p_chosen - mean log p_rejected) - gamma); returns [B]. 2405.14734.

    Free of a reference: `chosen` [B] and `rejected` [B, K] are log-probabilities, not ratios.
    """
    gap = (chosen / chosen_tokens)[:, None] - rejected / rejected_tokens
    return -logsigmoid(beta * gap - gamma).mean(1)


@dataclass(frozen=True)
class Objective:
    """Which loss is trained, with its constants."""

    loss: Loss = "dpo"
    beta: float = 0.1
    """Strength of the pull to the reference."""
    anchor: float = 0.0
    """Weight of the chosen completions' negative log-likelihood per token."""
    gamma: float = 0.5
    """simpo's target margin."""
    constant_eps: float = 0.1
    """cdpo's eps."""


@dataclass(frozen=True)
class Scores:
    """Token-summed log-probabilities of B pairs: chosen [B], rejected [B, K], counts alike."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    eps: Tensor
    """[B, K], read by rosepo and rdpo."""

    @property
    def chosen_ratio(self) -> Tensor:
        """r of the chosen completions, [B]."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """r of the rejected completions, [B, K]."""
        return self.rejected - self.reference_rejected


def preference_loss(objective: Objective, scores: Scores) -> Tensor:
    """The objective's loss of every pair, [B], without the anchor."""
    chosen, rejected, beta = scores.chosen_ratio, scores.rejected_ratio, objective.beta
    counts = scores.chosen_tokens, scores.rejected_tokens
    match objective.loss:
        case "dpo":
            return dpo(chosen, rejected, beta)
        case "rosepo":
            return rosepo(chosen, rejected, scores.eps, beta)
        case "cdpo":
            constant = torch.full_like(scores.eps, objective.constant_eps)
            return rosepo(chosen, rejected, constant, beta)
        case "rdpo":
            return rdpo(chosen, rejected, scores.eps, beta)
        case "ipo":
            return ipo(chosen, rejected, *counts, beta)
        case "sdpo":
            return sdpo(chosen, rejected, beta)
        case "dmpo":
            return dmpo(chosen, rejected, beta)
        case "simpo":
            return simpo(scores.chosen, scores.rejected, *counts, beta, objective.gamma)
        case "nll":
            return nll(scores.chosen, scores.chosen_tokens)
