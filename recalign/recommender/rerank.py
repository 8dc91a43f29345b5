"""Fit a re-ranker on lists: point-wise binary cross-entropy, once with texts and once without."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.config import RecommenderConfig
from recalign.metrics import ndcg
from recalign.progress import Progress, silent
from recalign.ranking import row_chunks, target_ranks
from recalign.recommender.examples import ListExamples
from recalign.recommender.fit import (
    FittedRecommender,
    Learning,
    cross_chosen,
    guard_figures,
    split_users,
    train_epochs,
)
from recalign.recommender.knowledge import parameter_groups
from recalign.recommender.prm import PRM, PRMShape, Reranker, start_prm
from recalign.recommender.signal import Quality
from recalign.seeding import derive_seed


def fit_reranker(
    config: RecommenderConfig,
    examples: ListExamples,
    item_text: np.ndarray,
    attributes: np.ndarray,
    progress: Progress = silent,
) -> FittedRecommender:
    """Fit `Reranker` on the examples' device and measure whether it reads the texts.

    In an epoch every list meets one random text of its user. item_text float32 [I+1, e]; attributes
    int64 [I+1, A], see `attribute_numbers`. UserError below `fit.MIN_USERS` users.
    """
    held_out, fitted = split_users(config, examples.users)
    train, test = examples.of_users(fitted), examples.of_users(held_out)
    model = start_reranker(
        config, examples.items.shape[1], item_text, attributes, train.all_texts()
    )
    model.to(examples.items.device)
    curve, choice = train_epochs(config, model.reading, train, test, READING, progress)
    figures = guard_figures(config, model.reading, test, choice, READING)
    choice.everyone.restore(model.reading)
    _, alone = train_epochs(config, model.bare, train, test, BARE, progress)
    (bare,) = cross_chosen(model.bare, test, alone, BARE, [None])
    alone.everyone.restore(model.bare)
    told = {
        "log_prob_no_text": float(bare.log_prob.mean()),
        "ndcg_no_text": float(bare.ndcg.mean()),
    }
    return FittedRecommender(model, curve, figures | told)


def start_reranker(
    config: RecommenderConfig,
    length: int,
    item_text: np.ndarray,
    attributes: np.ndarray,
    texts: Tensor,
) -> Reranker:
    """The re-ranker of lists of this length before training, on the CPU."""
    shape = PRMShape(
        item_text.shape[1], config.hidden, config.layers, length, len(item_text) - 1,
        int(attributes.max(initial=0)), attributes.shape[1],
        config.adapter if config.gate else "",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "recommender", "weights"))
        model = Reranker(shape, config.dropout)
    given = (torch.from_numpy(item_text).float(), texts.cpu(), torch.from_numpy(attributes))
    for one in (model.reading, model.bare):
        start_prm(one, *given, config.gate)
    return model


def attribute_numbers(items: pl.DataFrame) -> np.ndarray:
    """The attributes of ITEMS as numbers from 1, int64 [I+1, A], 0 padded; row 0 is padding."""
    named = items.select("item_index", pl.col("attributes")).explode("attributes")
    named = named.unnest("attributes").drop_nulls()
    values = (
        named.select("name", "value").unique().sort("name", "value").with_row_index("number", 1)
    )
    own = named.join(values, on=["name", "value"]).sort("item_index", "number")
    lists = own.group_by("item_index", maintain_order=True).agg("number")
    most = max((len(given) for given in lists["number"]), default=1)
    numbers = np.zeros((items.height + 1, most), dtype=np.int64)
    for item, given in lists.iter_rows():
        numbers[item, : len(given)] = given
    return numbers


@torch.no_grad()
def list_quality(model: PRM, data: ListExamples, texts: Tensor | None) -> Quality:
    """How well the positive items are ranked given each owner's texts [U, R, e]; None: without any.

    Per user: means over lists of NDCG and of what is learned, the log-likelihood of which items of
    a list are positive and which are not (nats; the sum over items of binary cross-entropy with the
    other sign).
    """
    n_texts = 1 if texts is None else texts.shape[1]
    n_lists, length = data.items.shape
    log_probs, gains = np.empty(n_lists), np.empty(n_lists)
    for rows in row_chunks(n_lists, n_texts * length * model.shape.hidden):
        items, places, positive = data.items[rows], data.places[rows], data.positive[rows]
        if texts is None:
            scores = model(items, places, None)
        else:
            scores = model.scores(items, places, texts[data.owners[rows]])
        wanted = positive[:, None].expand_as(scores)
        signs = wanted.to(scores.dtype) * 2 - 1
        log_prob = torch.nn.functional.logsigmoid(signs * scores).sum(2)
        flat, own = scores.flatten(0, 1), wanted.flatten(0, 1)
        targets = own * torch.arange(1, length + 1, device=own.device)
        padded = torch.nn.functional.pad(flat, (1, 0))
        ranks = target_ranks(padded, targets, targets.new_zeros(len(targets), 1)).cpu()
        gain = ndcg(ranks, own.sum(1).cpu(), None)
        log_probs[rows] = log_prob.mean(1).double().cpu().numpy()
        gains[rows] = gain.reshape(-1, n_texts).mean(1)
    owner = data.owners.cpu().numpy()
    counts = np.bincount(owner)
    return Quality(
        np.bincount(owner, weights=log_probs) / counts, np.bincount(owner, weights=gains) / counts
    )


def _loss(model: PRM, data: ListExamples, rows: Tensor, texts: Tensor | None) -> Tensor:
    """Binary cross-entropy of every item of the lists."""
    read = None if texts is None else texts[:, None]
    scores = model(data.items[rows], data.places[rows], read)[:, 0]
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, data.positive[rows].float())


def _optimiser(config: RecommenderConfig, model: PRM) -> torch.optim.Optimizer:
    """AdamW; the knowledge term as beside a sequence model, all else at one rate."""
    own = [part for name, part in model.named_parameters() if not name.startswith("term.")]
    groups: list[dict[str, Any]] = [{"params": own, "lr": config.learning_rate}]
    if model.term is not None:
        groups += parameter_groups(model.term, config.learning_rate)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


READING = Learning(_loss, list_quality, _optimiser)
BARE = replace(
    READING,
    loss=lambda model, data, rows, texts: _loss(model, data, rows, None),
    quality=lambda model, data, texts: list_quality(model, data, None),
)
