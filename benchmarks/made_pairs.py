"""Pairs of random words, for timing a training on them."""

import re

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from recalign.schemas import COMPLETIONS


def words_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Words that are one token each behind a space."""
    found = re.findall(r"^(?:Ġ[a-z]{3,}|w\d+)$", "\n".join(tokenizer.get_vocab()), re.MULTILINE)
    return sorted(word.removeprefix("Ġ") for word in found)


def sample_pairs(n: int, tokenizer: PreTrainedTokenizerBase, about: int) -> pl.DataFrame:
    """n users' pairs of random words: prompts of `about` (10 % more or less), completions of 25."""
    random, words = np.random.default_rng(0), words_of(tokenizer)

    def text(low: int, high: int) -> str:
        length = int(random.integers(low, high + 1))
        return " ".join(words[i] for i in random.integers(0, len(words), length))

    few = about // 10
    rows = [(u, text(about - few, about + few), text(20, 30), text(20, 30)) for u in range(n)]
    columns = ["user_index", "prompt", "chosen", "rejected"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def completions(pairs: pl.DataFrame) -> pl.DataFrame:
    """COMPLETIONS of `sample_pairs`."""
    rows = [
        {"user_index": user, "prompt": prompt, "completions": texts, "chosen": 0, "rejected": [1],
         "smoothing": [0.0]}
        for user, prompt, *texts in pairs.iter_rows()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=COMPLETIONS)
