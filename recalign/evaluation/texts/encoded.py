"""Texts as vectors, in the order of the users who are evaluated."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

EncodeUnique = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
"""Vectors [T, e] of the distinct texts, and each text's row in them [n]."""


@dataclass(frozen=True)
class EncodedTexts:
    """Users' texts: vectors [n, e] of distinct texts, and index [U, S] into them.

    An index of -1 stands for a text that cannot be read: that sample is scored without one.
    """

    vectors: Tensor
    index: Tensor


def encoded_texts(
    reasonings: pl.DataFrame, users: np.ndarray, greedy: bool, encode: EncodeUnique
) -> EncodedTexts:
    """The greedy reasoning, or all sampled ones, of `users` [U]; malformed ones become -1.

    ValueError: a user lacks reasonings, or users have different numbers of samples.
    """
    wanted = pl.col("sample") < 0 if greedy else pl.col("sample") >= 0
    table = reasonings.filter(wanted).sort("user_index", "sample")
    order = np.argsort(users, kind="stable")
    if len(users) == 0 or table.height % len(users):
        raise ValueError(f"{table.height} reasonings do not belong to {len(users)} users")
    n_samples = table.height // len(users)
    if not np.array_equal(table["user_index"].to_numpy(), np.repeat(users[order], n_samples)):
        raise ValueError("the reasonings belong to other users than those evaluated")
    return _texts(table["reasoning"], table["malformed"].is_null(), n_samples, order, encode)


def encoded_lines(texts: list[str], encode: EncodeUnique) -> EncodedTexts:
    """One text per user, in the order of the users; an empty one becomes -1."""
    series = pl.Series(texts, dtype=pl.String)
    return _texts(series, series != "", 1, np.arange(len(texts)), encode)


def _texts(
    texts: pl.Series, usable: pl.Series, n_samples: int, order: np.ndarray, encode: EncodeUnique
) -> EncodedTexts:
    vectors, rows = encode(texts.to_list())
    index = np.where(usable.to_numpy(), rows, -1).reshape(-1, n_samples)
    by_user = np.empty_like(index)
    by_user[order] = index
    return EncodedTexts(torch.from_numpy(vectors), torch.from_numpy(by_user))
