"""Derived seeds: a stream per (seed, names), so that order, batches and restarts do not matter."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

WORDS = 1 << 32


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under `seed`, equal in every process."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator of its own for `names` under `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))


def streams(seed: int, *names: str | int, last: np.ndarray) -> list[np.random.Generator]:
    """`stream(seed, *names, x)` for each x of `last`, int [n]: the same, at a fifth of the cost.

    Most of the cost of a generator is NumPy's SeedSequence (O'Neill 2015), which mixes one seed at
    a time. NumPy promises that its arithmetic stays, so here all seeds are mixed at once.
    """
    start = hashlib.sha256("".join(f"{name}\x1f" for name in (seed, *names)).encode())
    seeds = np.empty(len(last), dtype=">u8")
    for row, name in enumerate(last.tolist()):
        own = start.copy()
        own.update(str(name).encode())
        seeds[row] = int.from_bytes(own.digest()[:8], "big")
    mixed = map(_Mixed, _mixed(seeds >> 1))
    return [np.random.Generator(np.random.PCG64(own)) for own in mixed]  # type: ignore[arg-type]


class _Mixed(ISeedSequence):
    """A seed sequence whose words, uint64 [4], are known."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self.words


def _mixed(seeds: np.ndarray) -> np.ndarray:
    """What `SeedSequence(seed).generate_state(4, uint64)` gives for each of `seeds` [n]: [n, 4]."""
    seeds = seeds.astype(np.uint64)
    entropy = [(seeds % WORDS).astype(np.uint32), (seeds // WORDS).astype(np.uint32)]
    entropy += [np.zeros_like(entropy[0])] * 2
    pairs = pairwise(_factors(0x43B0D7E5, 0x931E8875))
    pool = [_hashed(word, next(pairs)) for word in entropy]
    for source in range(4):
        for target in range(4):
            if source != target:
                other = _hashed(pool[source], next(pairs))
                both: np.ndarray = pool[target] * np.uint32(0xCA01F9DD) - other * np.uint32(
                    0x4973F715
                )
                pool[target] = both ^ (both >> np.uint32(16))
    pairs = pairwise(_factors(0x8B51F9DD, 0x58F38DED))
    words = [_hashed(pool[place % 4], next(pairs)) for place in range(8)]
    return np.stack(words, axis=1).astype("<u4").view("<u8")


def _factors(first: int, step: int) -> Iterator[np.uint32]:
    """`first` and its products with powers of `step`, modulo 2^32."""
    while True:
        yield np.uint32(first)
        first = first * step % WORDS


def _hashed(words: np.ndarray, factors: tuple[np.uint32, np.uint32]) -> np.ndarray:
    words = (words ^ factors[0]) * factors[1]
    return words ^ (words >> np.uint32(16))
