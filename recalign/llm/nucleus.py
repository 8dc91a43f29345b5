"""One token by inverse CDF from top-k, top-p or all tokens, for any size of vocabulary."""

import torch
from torch import Tensor
from torch.nn import functional

from recalign.ranking import largest

_PRESELECTED = (64, 512)  # tokens looked at first for top-p, then for rows of a larger nucleus
_SORTED = 4096  # tokens of a vocabulary that is then sorted whole; larger ones go by a histogram
_BINS, _BIN_BITS = 4096, 16  # of that histogram: 128 for each halving of the probability
_OF_BIN = (64, 2048)  # tokens looked at first for those of one bin
_ONE, _BELOW_1 = 0x3F800000, 1 - 2.0**-24  # the bits of 1.0 in float32; the float32 before it
_NEVER = 2.0**-64  # shares below are as good as 0; dividing by some of them would overflow
_SUMMED = 256  # neighbouring tokens whose probabilities are summed before a draw looks at them


def _inverse_cdf(probabilities: Tensor, draws: Tensor) -> Tensor:
    """Index of the first entry whose cumulative share exceeds the draw; [R, V], [R] -> [R]."""
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:].contiguous()
    return _first_above(cumulative, total * draws[:, None], total).squeeze(-1)


def _first_above(cumulative: Tensor, targets: Tensor, total: Tensor) -> Tensor:
    picked = torch.searchsorted(cumulative, targets, right=True)
    # A draw that rounds up to the total must not land on the zero-probability tail.
    return torch.minimum(picked, torch.searchsorted(cumulative, total))


def _inverse_cdf_of_many(probabilities: Tensor, draws: Tensor) -> Tensor:
    """As `_inverse_cdf`: first the block of tokens that the draw lands in, then the token."""
    n_rows, n_tokens = probabilities.shape
    blocks = functional.pad(probabilities, (0, -n_tokens % _SUMMED)).view(n_rows, -1, _SUMMED)
    cumulative = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    targets = total * draws[:, None]
    block = _first_above(cumulative, targets, total)
    before = functional.pad(cumulative, (1, 0)).gather(-1, block)
    inside = blocks[torch.arange(n_rows, device=block.device), block[:, 0]]
    inside = before + inside.cumsum(-1, dtype=torch.float64)
    return (block * _SUMMED + _first_above(inside, targets, inside[:, -1:].contiguous()))[:, 0]


def _nucleus(
    logits: Tensor, draws: Tensor, k: int, top_p: float, log_total: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sample among the k most probable tokens, cut to the smallest set that holds `top_p`.

    `log_total` [R, 1] is the log-normaliser of the whole row, or None to renormalise over the k.
    Returns tokens [R] and whether the k tokens really hold the nucleus, bool [R].
    """
    values, tokens = largest(logits, k)
    if log_total is None:
        log_total = values.logsumexp(-1, keepdim=True)
    return _draw_among(tokens, (values - log_total).exp().double(), draws, top_p)


def _draw_among(
    tokens: Tensor, shares: Tensor, draws: Tensor, top_p: float
) -> tuple[Tensor, Tensor]:
    """`_nucleus` of these tokens [R, k] with these shares [R, k], largest first."""
    cumulative = shares.cumsum(-1)
    kept = (cumulative - shares) < top_p  # the mass before a token is still too small without it
    complete = cumulative[:, -1] >= top_p if top_p < 1 else kept[:, 0]
    # In vocabulary order, so that near-ties that swap ranks do not change the draw.
    tokens, order = tokens.sort(dim=-1)
    shares = (shares * kept).gather(-1, order)
    return tokens.gather(-1, _inverse_cdf(shares, draws)[:, None]).squeeze(-1), complete


def _nucleus_of_many(shares: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """`_nucleus` of a large vocabulary; shares float32 [R, V], those of a softmax."""
    values, tokens = largest(shares, _PRESELECTED[0])
    drawn, complete = _draw_among(tokens, values.double(), draws, top_p)
    wide = (~complete).nonzero()[:, 0]  # few rows of real texts
    if len(wide):
        drawn[wide] = _inverse_cdf_of_many(_cut(shares[wide], top_p), draws[wide])
    return drawn


def _cut(shares: Tensor, top_p: float) -> Tensor:
    """`shares` in another unit, with 0 for the tokens outside the nucleus; nothing is sorted whole.

    The bits of a positive float32 are ordered as its value, so their upper part is the token's bin
    in a histogram. Of the bin in which the probability reaches `top_p` the tokens are sorted; bins
    of larger shares are kept whole.
    """
    bins = ((_ONE - shares.view(torch.int32)) >> _BIN_BITS).clamp_(0, _BINS - 1).long()
    mass = shares.new_zeros(len(shares), _BINS, dtype=torch.float64)
    mass = mass.scatter_add_(1, bins, shares.double()).cumsum(-1)
    # Of shares that sum to less by rounding, the last bin that has any.
    edge = (mass < mass[:, -1:].clamp(max=top_p)).sum(-1, keepdim=True)
    tokens = _of_bin(shares, edge)
    own = shares.gather(-1, tokens).double() * (bins.gather(-1, tokens) == edge)
    own, order = own.sort(-1, descending=True)
    before = functional.pad(mass, (1, 0)).gather(-1, edge) + own.cumsum(-1) - own
    kept = (before < top_p) & (own > 0)
    least = own.masked_fill(~kept, 1.0).amin(-1, keepdim=True)
    # Divided by the least share that is kept, all that are kept are at least 1, and no others.
    cut = functional.threshold(shares / least.float().clamp(min=_NEVER), _BELOW_1, 0.0)
    tied = torch.where((own == least) & ~kept, tokens.gather(-1, order), -1)
    rows, places = (tied >= 0).nonzero(as_tuple=True)
    cut[rows, tied[rows, places]] = 0.0
    return cut


def _of_bin(shares: Tensor, edge: Tensor) -> Tensor:
    """Tokens [R, k], in no order, among which are all of each row's bin `edge` [R, 1]."""
    high, low = (
        (_ONE - (b << _BIN_BITS)).view(torch.float32) for b in (edge.int(), edge.int() + 1)
    )
    low = low.masked_fill(edge == _BINS - 1, 0.0)
    distance = (shares - (low + high) / 2).abs_()
    for k in (k for k in _OF_BIN if k < shares.shape[-1]):
        found, tokens = distance.topk(k, largest=False)
        if (found[:, -1:] > 0.501 * (high - low)).all():
            return tokens
    return torch.arange(shares.shape[-1], device=shares.device).expand(len(shares), -1)


def draw(logits: Tensor, draws: Tensor, top_k: int, top_p: float) -> Tensor:
    """The token of each row, int64 [R]: by inverse CDF, in the vocabulary's order.

    logits float32 [R, V]; draws float64 [R] in [0, 1). Only the `top_k` most probable tokens (0:
    all) and of those the smallest set that holds `top_p` of the probability.
    """
    n_tokens = logits.shape[-1]
    if 0 < top_k < n_tokens:
        return _nucleus(logits, draws, top_k, top_p, None)[0]
    if top_p >= 1:
        many = n_tokens > _SUMMED**2 // 4
        return (_inverse_cdf_of_many if many else _inverse_cdf)(logits.softmax(-1), draws)
    if n_tokens > _SORTED:
        return _nucleus_of_many(logits.softmax(-1), draws, top_p)
    log_total = logits.logsumexp(-1, keepdim=True)
    tokens = torch.empty_like(draws, dtype=torch.int64)
    rows = torch.arange(len(tokens), device=tokens.device)  # whose nucleus is not found yet
    for k in (*(k for k in _PRESELECTED if k < n_tokens), n_tokens):
        tokens[rows], complete = _nucleus(logits[rows], draws[rows], k, top_p, log_total[rows])
        rows = rows[~complete]
        if not len(rows):
            break
    return tokens
