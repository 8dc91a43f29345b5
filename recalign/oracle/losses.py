"""Losses of next-item prediction: full softmax, sampled softmax, gBCE and BCE.

All take states [N, d], the item matrix [I+1, d], the output bias [I+1] and targets [N] (1..I), and
return the mean over N. All but the full softmax also take some rows of matrix and bias, with
targets and negatives counted in those. Negatives [K] are shared by the whole batch: one product.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from recalign.oracle.fused import fused_cross_entropy, fused_negatives_cross_entropy

GBCE_CALIBRATION = 0.75  # t of gSASRec, its authors' choice


def full_softmax(
    states: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
) -> Tensor:
    """-log softmax over all items (never the padding), by the fused product."""
    return fused_cross_entropy(states, matrix[1:], bias[1:], targets - 1, dtype)


def sampled_softmax(
    states: Tensor,
    matrix: Tensor,
    bias: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
) -> Tensor:
    """-log softmax over the target and K negatives, with the logQ correction.

    Each negative's logit is lowered by the log of its expected count in the sample,
    log_expected[item] = log(K q(item)) [I+1] (Bengio and Senecal), so that the sum over the
    sample estimates the sum over the catalogue. A negative equal to the target is left out.
    One drawn c times stands in one column, raised by log c: so a target meets at most one column,
    which is looked up, where comparing N x K items would cost more than their scores.
    """
    drawn, counts = negatives.unique(return_counts=True)
    shift = counts.log() - log_expected[drawn]
    own = _score_of(states, matrix, bias, targets)
    column = torch.searchsorted(drawn, targets).clamp(max=len(drawn) - 1)
    left_out = drawn[column] == targets
    return fused_negatives_cross_entropy(
        states, own, matrix[drawn], bias[drawn] + shift, column, left_out
    )


def gbce(
    states: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, negatives: Tensor, n_items: int
) -> Tensor:
    """gBCE (Petrov and Macdonald, arXiv 2308.07192) with K of `n_items` items as uniform negatives.

    -(1/(K+1)) (beta log sigma(s+) + sum log sigma(-s-)), beta = a (t (1 - 1/a) + 1/a), where
    a = K / (I - 1) is the sampling rate; beta repairs the overconfidence of negative sampling.
    """
    beta = gbce_exponent(len(negatives), n_items)
    positive = F.logsigmoid(_score_of(states, matrix, bias, targets))
    others = F.logsigmoid(-F.linear(states, matrix[negatives], bias[negatives]))
    others = others.masked_fill(negatives == targets[:, None], 0.0)
    return -(beta * positive + others.sum(1)).mean() / (len(negatives) + 1)


def gbce_exponent(n_negatives: int, n_items: int) -> float:
    """beta of gBCE, 1 if every item is a negative, near 1 - t if few are."""
    rate = min(1.0, n_negatives / max(1, n_items - 1))
    return rate * (GBCE_CALIBRATION * (1 - 1 / rate) + 1 / rate)


def bce(states: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """-log sigma(s+) - log sigma(-s-), one negative [N] for each position (SASRec's original)."""
    positive = F.logsigmoid(_score_of(states, matrix, bias, targets))
    other = F.logsigmoid(-_score_of(states, matrix, bias, negatives))
    return -(positive + other.masked_fill(negatives == targets, 0.0)).mean()


def _score_of(states: Tensor, matrix: Tensor, bias: Tensor, items: Tensor) -> Tensor:
    """Score of one item per state, [N]."""
    return (states * matrix[items]).sum(1) + bias[items]
