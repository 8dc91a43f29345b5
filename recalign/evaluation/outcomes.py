"""From what a recommender makes of each case to ranks, first places and recommended lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recalign.evaluation.fixed_lists import LISTS
from recalign.evaluation.next_items import Cases
from recalign.progress import Progress, silent
from recalign.ranking import target_ranks, top_items
from recalign.sequences import Sequences

FULL = ""
"""What the labels of metrics over the whole catalogue start with."""
CHUNK_SCORES = 1 << 22  # of the catalogue, held at a time


@dataclass(frozen=True)
class Given:
    """What a recommender makes of n cases; what it does not do is left out.

    scores [n, I+1] of the catalogue; or best int64 [n, W], the items it found, best first, 0
    padded; lists: kind -> scores [n, C] of the candidate lists (where there are no `scores`);
    answers: label's start -> texts.
    """

    scores: Tensor | None = None
    best: np.ndarray | None = None
    lists: Mapping[str, np.ndarray] = field(default_factory=dict)
    answers: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """All N cases, by what metric labels start with ("" is the whole catalogue).

    ranks int64 [N]: of the target, from 1, ties against it; 0: not among the items found.
    firsts int64 [N]: the item in the first place (where the target ties for it, another).
    recommended int64 [N, top]: the head of the catalogue's ranking, 0 padded; None: not ranked.
    """

    ranks: dict[str, np.ndarray]
    firsts: dict[str, np.ndarray]
    recommended: np.ndarray | None
    answers: dict[str, list[str]]


Ranked = tuple[np.ndarray, np.ndarray]


def judge(
    given: Callable[[slice], Given],
    cases: Cases,
    sequences: Sequences,
    lists: Mapping[str, np.ndarray],
    top: int,
    *,
    rows: int = 1 << 30,
    progress: Progress = silent,
) -> Judged:
    """Ask for at most `rows` cases at a time; items taken before a case are never ranked in full.

    `lists`: kind -> int64 [N, C], see `fixed_lists`.
    """
    parts: dict[str, list[Ranked]] = {}
    heads: list[np.ndarray] = []
    answers: dict[str, list[str]] = {}
    step = max(1, min(rows, CHUNK_SCORES // (sequences.n_items + 1)))
    for start in range(0, len(cases), step):
        where = slice(start, min(start + step, len(cases)))
        one = given(where)
        full = _in_full(one, cases.targets[where], cases.seen(sequences, where), top)
        if full is not None:
            own_ranks, head = full
            heads.append(head[:, :top])
            firsts = _first(own_ranks, head, cases.targets[where])
            parts.setdefault(FULL, []).append((own_ranks, firsts))
        for kind, items in lists.items():
            scores = one.lists.get(kind)
            if scores is None and one.scores is not None:
                own = torch.from_numpy(items[where]).to(one.scores.device)
                scores = one.scores.gather(1, own).cpu().numpy()
            if scores is not None:
                parts.setdefault(LISTS[kind], []).append(_in_list(scores, items[where]))
        for label, texts in one.answers.items():
            answers.setdefault(label, []).extend(texts)
        progress(where.stop, len(cases), "cases")
    joined = {
        name: [np.concatenate(arrays) for arrays in zip(*own, strict=True)]
        for name, own in parts.items()
    }
    return Judged(
        {name: own[0] for name, own in joined.items()},
        {name: own[1] for name, own in joined.items()},
        np.concatenate(heads) if heads else None,
        answers,
    )


def by_item(item_scores: Tensor) -> Callable[[slice], Given]:
    """The same scores [I+1] for every case, such as popularity."""
    return lambda where: Given(scores=item_scores.expand(where.stop - where.start, -1))


def by_states(states: Tensor, matrix: Tensor, bias: Tensor) -> Callable[[slice], Given]:
    """A sequential recommender: states [N, d] of the cases, item matrix [I+1, d], bias [I+1]."""
    return lambda where: Given(scores=torch.addmm(bias, states[where], matrix.T))


def _in_full(one: Given, targets: np.ndarray, seen: np.ndarray, top: int) -> Ranked | None:
    """Ranks [n] of the targets, and the head of the ranking, at least two items long."""
    if one.scores is not None:
        device = one.scores.device
        hidden = torch.from_numpy(seen).to(device)
        ranks = target_ranks(one.scores, torch.from_numpy(targets[:, None]).to(device), hidden)
        head = top_items(one.scores, hidden, max(top, 2))
        return ranks[:, 0].cpu().numpy(), head.cpu().numpy()
    if one.best is None:
        return None
    hits = one.best == targets[:, None]
    return np.where(hits.any(1), hits.argmax(1) + 1, 0), one.best


def _first(ranks: np.ndarray, head: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The item in the first place; a target there that only ties for it gives way."""
    second = head[:, min(1, head.shape[1] - 1)]
    gives_way = (ranks != 1) & (head[:, 0] == targets)
    return np.where(ranks == 1, targets, np.where(gives_way, second, head[:, 0]))


def _in_list(scores: np.ndarray, items: np.ndarray) -> Ranked:
    """Ranks of the targets (column 0) among their lists [n, C], and the items in front."""
    if np.isnan(scores).any():
        raise ValueError("a candidate's score is NaN: the model diverged")
    others = np.where(items[:, 1:] > 0, scores[:, 1:], -np.inf)
    ranks = 1 + ((others >= scores[:, :1]) & (items[:, 1:] > 0)).sum(1)
    best = np.take_along_axis(items[:, 1:], others.argmax(1)[:, None], 1)[:, 0]
    return ranks, np.where(ranks == 1, items[:, 0], best)
