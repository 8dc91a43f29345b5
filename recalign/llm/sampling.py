"""Counter-based random numbers and inverse-CDF sampling: no draw depends on another row's."""

import torch
from torch import Tensor
from torch.nn import functional

from recalign.config import AnswersConfig
from recalign.seeding import derive_seed

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FACTOR_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_FACTOR_2 = 0x94D049BB133111EB - (1 << 64)

_CHUNK = 1 << 22  # logits turned into probabilities at once: bounds the float64 scratch space
_CACHED = 1 << 19  # the same on a processor: they stay in its cache
_PRESELECTED = (64, 512)  # tokens looked at first for top-p, then for rows of a larger nucleus
_SORTED = 4096  # tokens of a vocabulary that is then sorted whole; larger ones go by a histogram
_BINS, _PER_NAT = 4096, 128  # of that histogram, by distance from the most probable token
_BLOCK = 64  # neighbouring tokens of which only the largest is compared at first
_SUMMED = 256  # neighbouring tokens whose probabilities are summed before a draw looks at them


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own copies the sign bit)."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(keys: Tensor, step: int | Tensor) -> Tensor:
    """Output number `step` (from 0) of the SplitMix64 streams seeded with `keys`; int64 bits."""
    z = keys + _GAMMA * (torch.as_tensor(step, device=keys.device) + 1)
    z = (z ^ _shifted(z, 30)) * _FACTOR_1
    z = (z ^ _shifted(z, 27)) * _FACTOR_2
    return z ^ _shifted(z, 31)


def stream_keys(seed: int, name: str, users: Tensor, samples: Tensor) -> Tensor:
    """One key per row for the stream of (seed, name, user, sample); int64 [R]."""
    root = torch.full_like(users, derive_seed(seed, name))
    return splitmix64(splitmix64(root, 0) ^ users, 0) ^ splitmix64(samples, 0)


def uniforms(keys: Tensor, step: int) -> Tensor:
    """One number in [0, 1) per row for this step, float64 [R] with 53 random bits."""
    return _shifted(splitmix64(keys, step), 11).to(torch.float64) * 2.0**-53


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


def _largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`logits.topk(k)`, in one pass over a large vocabulary.

    The k largest entries lie in at most k blocks, and those are the blocks with the largest maxima.
    """
    n_rows, n_tokens = logits.shape
    if k * _BLOCK * 2 > n_tokens:
        return logits.topk(k, dim=-1)
    blocks = functional.pad(logits, (0, -n_tokens % _BLOCK), value=-torch.inf)
    blocks = blocks.view(n_rows, -1, _BLOCK)
    chosen = blocks.amax(-1).topk(k, dim=-1, sorted=False).indices.sort(-1).values
    inside = blocks.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    values, places = inside.topk(k, dim=-1)
    return values, chosen.gather(-1, places // _BLOCK) * _BLOCK + places % _BLOCK


def _nucleus(
    logits: Tensor, draws: Tensor, k: int, top_p: float, log_total: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sample among the k most probable tokens, cut to the smallest set that holds `top_p`.

    `log_total` [R, 1] is the log-normaliser of the whole row, or None to renormalise over the k.
    Returns tokens [R] and whether the k tokens really hold the nucleus, bool [R].
    """
    values, tokens = _largest(logits, k)
    if log_total is None:
        log_total = values.logsumexp(-1, keepdim=True)
    shares = (values - log_total).exp().double()
    cumulative = shares.cumsum(-1)
    kept = (cumulative - shares) < top_p  # the mass before a token is still too small without it
    complete = cumulative[:, -1] >= top_p if top_p < 1 else kept[:, 0]
    # In vocabulary order, so that near-ties that swap ranks do not change the draw.
    tokens, order = tokens.sort(dim=-1)
    shares = (shares * kept).gather(-1, order)
    return tokens.gather(-1, _inverse_cdf(shares, draws)[:, None]).squeeze(-1), complete


def _wide_nucleus(logits: Tensor, draws: Tensor, top_p: float, log_total: Tensor) -> Tensor:
    """As `_nucleus` over all tokens, of which only those in one bin of a histogram are sorted.

    That is the bin in which the probability reaches `top_p`. Tokens of earlier bins are more
    probable, so those bins are kept whole.
    """
    n_rows = len(logits)
    shares = (logits - log_total).exp().double()
    depth = logits.amax(-1, keepdim=True) - logits
    bins = (depth * _PER_NAT).clamp(max=_BINS - 1).long()
    places = bins + torch.arange(n_rows, device=bins.device)[:, None] * _BINS
    mass = (
        places.flatten().bincount(shares.flatten(), n_rows * _BINS).view(n_rows, _BINS).cumsum(-1)
    )
    edge = (mass < top_p).sum(-1, keepdim=True).clamp(max=_BINS - 1)
    inside = bins == edge
    values, tokens = logits.masked_fill(~inside, -torch.inf).topk(int(inside.sum(-1).max()), dim=-1)
    own = shares.gather(-1, tokens) * (values > -torch.inf)
    before = functional.pad(mass, (1, 0)).gather(-1, edge) + own.cumsum(-1) - own
    kept = (bins < edge).scatter(-1, tokens, (before < top_p) & (values > -torch.inf))
    return _inverse_cdf_of_many(shares * kept, draws)


def _sample_chunk(logits: Tensor, draws: Tensor, top_k: int, top_p: float) -> Tensor:
    n_tokens = logits.shape[-1]
    if 0 < top_k < n_tokens:
        return _nucleus(logits, draws, top_k, top_p, None)[0]
    if top_p >= 1:
        many = n_tokens > _SUMMED**2 // 4
        return (_inverse_cdf_of_many if many else _inverse_cdf)(logits.softmax(-1), draws)
    log_total = logits.logsumexp(-1, keepdim=True)
    tokens = torch.empty_like(draws, dtype=torch.int64)
    rows = torch.arange(len(tokens), device=tokens.device)  # whose nucleus is not found yet
    for k in (k for k in _PRESELECTED if k < n_tokens):
        tokens[rows], complete = _nucleus(logits[rows], draws[rows], k, top_p, log_total[rows])
        rows = rows[~complete]
        if not len(rows):
            return tokens
    wide, totals = logits[rows], log_total[rows]
    if n_tokens > _SORTED:
        tokens[rows] = _wide_nucleus(wide, draws[rows], top_p, totals)
    else:
        tokens[rows] = _nucleus(wide, draws[rows], n_tokens, top_p, totals)[0]
    return tokens


def sample_tokens(
    logits: Tensor, rows: Tensor, draws: Tensor, greedy: Tensor, sampling: AnswersConfig
) -> Tensor:
    """The next token of each sample, int64 [A].

    logits [R, V]; rows int64 [A], the row of `logits` each sample draws from; draws float64 [A] in
    [0, 1); greedy bool [A]: those take the arg-max. Temperature, then top-k (0: off), then top-p
    (1: off), as in Hugging Face's generate.
    """
    parts = []
    size = max(1, (_CACHED if logits.device.type == "cpu" else _CHUNK) // logits.shape[-1])
    for first in range(0, len(rows), size):
        part = logits[rows[first : first + size]].float()
        scaled, part_draws = part / sampling.temperature, draws[first : first + size]
        drawn = _sample_chunk(scaled, part_draws, sampling.top_k, sampling.top_p)
        best = greedy[first : first + size]
        drawn[best] = part[best].argmax(-1)
        parts.append(drawn)
    return torch.cat(parts)
