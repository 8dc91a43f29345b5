"""Listwise preference losses: pure functions over all completions of a prompt, one value each.

Notation: B prompts with S completions at most, of which those `present` [B, S] are there; r [B, S]
is the log ratio to the reference, summed over tokens, and `rewards` [B, S] says which is better.
Completions with equal rewards are not preferred to one another.
"""

import torch
from torch import Tensor

from recalign.alignment.losses import sdpo


def best_against_all(
    ratios: Tensor, rewards: Tensor, chosen: Tensor, present: Tensor, beta: float
) -> Tensor:
    """-log sigma(-log sum_d exp(beta (r_d - r_chosen))) over all d that earn less; returns [B].

    Softmax-DPO (2406.09215) with every worse sample as a rejected one; `chosen` int64 [B] is the
    place of the best, and something earns less than it.
    """
    place = chosen[:, None]
    worse = present & (rewards < rewards.gather(1, place))
    rejected = ratios.masked_fill(~worse, -torch.inf)
    return sdpo(ratios.gather(1, place).squeeze(1), rejected, beta)


def plackett_luce(ratios: Tensor, rewards: Tensor, present: Tensor, beta: float) -> Tensor:
    """-sum_i log [exp(beta r_i) / sum_j exp(beta r_j)], j over what earns no more than i; [B].

    DPO's Plackett-Luce form (2305.18290, appendix A.3). The sum runs over the completions with a
    worse one, so that with two it is dpo; equal rewards share their denominator (Breslow).
    """
    scores = beta * ratios
    earns, other = rewards[:, :, None], rewards[:, None, :]  # [B, i, 1] and [B, 1, j]
    itself = torch.eye(ratios.shape[1], dtype=torch.bool, device=ratios.device)
    beside = ((other <= earns) & present[:, None, :]) | itself
    ranked = ((other < earns) & present[:, None, :]).any(2) & present
    denominators = scores[:, None, :].masked_fill(~beside, -torch.inf).logsumexp(2)
    return torch.where(ranked, denominators - scores, 0).sum(1)
