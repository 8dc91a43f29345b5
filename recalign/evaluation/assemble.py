"""From reasonings and recommenders to the scores of every row of the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.evaluation.rows import (
    Reader,
    Row,
    Scores,
    Texts,
    same_for_all,
    shuffled_across_users,
    with_reasonings,
    without_reasoning,
)

EncodeUnique = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
"""Vectors [T, e] of the distinct texts, and each text's row in them [n]."""


@dataclass(frozen=True)
class Backbone:
    """The oracle as tensors: states [U, d], item matrix [I+1, d], item bias [I+1]."""

    states: Tensor
    item_matrix: Tensor
    item_bias: Tensor


def encoded_texts(
    reasonings: pl.DataFrame, users: np.ndarray, greedy: bool, encode: EncodeUnique
) -> Texts:
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


def encoded_lines(texts: list[str], encode: EncodeUnique) -> Texts:
    """One text per user, in the order of the users; an empty one becomes -1."""
    series = pl.Series(texts, dtype=pl.String)
    return _texts(series, series != "", 1, np.arange(len(texts)), encode)


def _texts(
    texts: pl.Series, usable: pl.Series, n_samples: int, order: np.ndarray, encode: EncodeUnique
) -> Texts:
    vectors, rows = encode(texts.to_list())
    index = np.where(usable.to_numpy(), rows, -1).reshape(-1, n_samples)
    by_user = np.empty_like(index)
    by_user[order] = index
    return Texts(torch.from_numpy(vectors), torch.from_numpy(by_user))


def scores_of(
    rows: list[Row],
    backbone: Backbone,
    popularity: Tensor,
    texts: Mapping[tuple[str, str], Texts],
    readers: Mapping[str, Reader],
    seed: int,
) -> dict[Row, Scores]:
    """How each row scores the catalogue.

    popularity [I+1]; texts by (policy, decoding), templates under (name, "none"); readers by
    Row.recommender.
    """
    alone = without_reasoning(backbone.states, backbone.item_matrix, backbone.item_bias)

    def scores(row: Row) -> Scores:
        if row.recommender == "popularity":
            return same_for_all(popularity)
        if row.recommender == "sasrec":
            return alone
        if row.policy == "shuffled":
            own = texts["base", row.decoding]
            read = Texts(own.vectors, shuffled_across_users(own.index, seed))
        else:
            read = texts[row.policy, row.decoding]
        return with_reasonings(backbone.states, read, readers[row.recommender], alone)

    return {row: scores(row) for row in rows}
