"""Counter-based random numbers and sampling by them: no draw depends on another row's."""

import torch
from torch import Tensor

from recalign.config import AnswersConfig
from recalign.llm.nucleus import draw
from recalign.seeding import derive_seed

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FACTOR_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_FACTOR_2 = 0x94D049BB133111EB - (1 << 64)

CACHED = 1 << 19  # logits turned into probabilities at once on a processor: they stay in its cache
_LEAST_ON_GPU = 1 << 22
_SCRATCH = 64  # bytes that one of them takes meanwhile, in copies of up to 8 bytes
GPU_SHARE = 1 / 8  # of the room of texts written at once is scratch space, on a GPU


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


def logits_at_once(device: str, gigabytes: float) -> int:
    """How many logits are turned into probabilities at once, where texts have so much room.

    A GPU takes longer to start the work on a few of them than to do it.
    """
    if device == "cpu":
        return CACHED
    return max(_LEAST_ON_GPU, int(GPU_SHARE * gigabytes * 1e9 / _SCRATCH))


def sample_tokens(
    logits: Tensor,
    rows: Tensor,
    draws: Tensor,
    greedy: Tensor,
    sampling: AnswersConfig,
    at_once: int = CACHED,
) -> Tensor:
    """The next token of each sample, int64 [A].

    logits [R, V]; rows int64 [A], the row of `logits` each sample draws from; draws float64 [A] in
    [0, 1); greedy bool [A]: those take the arg-max. Temperature, then top-k (0: off), then top-p
    (1: off), as in Hugging Face's generate. `at_once` logits are looked at together.
    """
    parts = []
    size = max(1, at_once // logits.shape[-1])
    for first in range(0, len(rows), size):
        part = logits[rows[first : first + size]].float()
        scaled, part_draws = part / sampling.temperature, draws[first : first + size]
        drawn = draw(scaled, part_draws, sampling.top_k, sampling.top_p)
        best = greedy[first : first + size]
        drawn[best] = part[best].argmax(-1)
        parts.append(drawn)
    return torch.cat(parts)
