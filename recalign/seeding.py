"""Derived seeds: a stream per (seed, names), so that order, batches and restarts do not matter."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under `seed`, equal in every process."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator of its own for `names` under `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))
