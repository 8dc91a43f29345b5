"""Derived seeds: a stream per (seed, names), so that order, batches and restarts do not matter."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

WORDS = 1 << 32
MIXED = 1 << 13  # seeds mixed at once: they stay in the processor's cache


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under `seed`, equal in every process."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator of its own for `names` under `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))


class Streams:
    """`stream(seed, *names, x)` for each x of `last`, int [n]: the same, at a fraction of the cost.

    `streams[rows]` makes those of some rows. Most of the cost of a generator is NumPy's
    SeedSequence (O'Neill 2015), which mixes one seed at a time. NumPy promises that its arithmetic
    stays, so here all seeds are mixed at once: 32 bytes a row are kept.
    """

    def __init__(self, seed: int, *names: str | int, last: np.ndarray) -> None:
        start = "".join(f"{name}\x1f" for name in (seed, *names)).encode()
        sha256 = hashlib.sha256
        digests = b"".join([sha256(start + b"%d" % name).digest() for name in last.tolist()])
        seeds = np.frombuffer(digests, dtype=">u8")[::4] >> 1
        parts = np.split(seeds, range(MIXED, len(seeds), MIXED))
        self.words = np.concatenate([_mixed(part) for part in parts])

    def __getitem__(self, rows: slice | np.ndarray) -> list[np.random.Generator]:
        mixed = map(_Mixed, self.words[rows])
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
