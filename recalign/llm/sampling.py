"""Counter-based random numbers and inverse-CDF sampling: no draw depends on another row's."""

import torch
from torch import Tensor

from recalign.config import SamplingConfig
from recalign.seeding import derive_seed

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FACTOR_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_FACTOR_2 = 0x94D049BB133111EB - (1 << 64)

_CHUNK = 1 << 22  # logits turned into probabilities at once: bounds the float64 scratch space
_PRESELECTED = 64  # tokens looked at first for top-p; rows of a larger nucleus are sorted in full


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
    picked = torch.searchsorted(cumulative, total * draws[:, None], right=True)
    # A draw that rounds up to the total must not land on the zero-probability tail.
    return torch.minimum(picked, torch.searchsorted(cumulative, total)).squeeze(-1)


def _nucleus(
    logits: Tensor, draws: Tensor, k: int, top_p: float, log_total: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sample among the k most probable tokens, cut to the smallest set that holds `top_p`.

    `log_total` [R, 1] is the log-normaliser of the whole row, or None to renormalise over the k.
    Returns tokens [R] and whether the k tokens really hold the nucleus, bool [R].
    """
    values, tokens = logits.topk(k, dim=-1)
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


def _sample_chunk(logits: Tensor, draws: Tensor, top_k: int, top_p: float) -> Tensor:
    n_tokens = logits.shape[-1]
    if 0 < top_k < n_tokens:
        return _nucleus(logits, draws, top_k, top_p, None)[0]
    if top_p >= 1:
        return _inverse_cdf(logits.softmax(-1), draws)
    log_total = logits.logsumexp(-1, keepdim=True)
    tokens, complete = _nucleus(logits, draws, min(_PRESELECTED, n_tokens), top_p, log_total)
    wide = (~complete).nonzero().squeeze(-1)
    if len(wide):
        tokens[wide] = _nucleus(logits[wide], draws[wide], n_tokens, top_p, log_total[wide])[0]
    return tokens


def sample_tokens(
    logits: Tensor, rows: Tensor, draws: Tensor, greedy: Tensor, sampling: SamplingConfig
) -> Tensor:
    """The next token of each sample, int64 [A].

    logits [R, V]; rows int64 [A], the row of `logits` each sample draws from; draws float64 [A] in
    [0, 1); greedy bool [A]: those take the arg-max. Temperature, then top-k (0: off), then top-p
    (1: off), as in Hugging Face's generate.
    """
    parts = []
    size = max(1, _CHUNK // logits.shape[-1])
    for first in range(0, len(rows), size):
        part = logits[rows[first : first + size]].float()
        scaled, part_draws = part / sampling.temperature, draws[first : first + size]
        drawn = _sample_chunk(scaled, part_draws, sampling.top_k, sampling.top_p)
        best = greedy[first : first + size]
        parts.append(torch.where(best, part.argmax(-1), drawn) if best.any() else drawn)
    return torch.cat(parts)
