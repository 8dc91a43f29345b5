"""From what a recommender makes of each case to ranks, first places and recommended lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.evaluation.candidate_lists import CandidateLists, ranks_in_lists
from recalign.evaluation.next_items.cases import Cases
from recalign.metric_columns import CATALOGUE
from recalign.progress import Progress, silent
from recalign.ranking import target_ranks, top_items
from recalign.schemas import RECOMMENDATIONS

CHUNK_SCORES = 1 << 22  # of the catalogue, held at a time


@dataclass(frozen=True)
class Response:
    """What a recommender makes of n cases; what it does not do is left out.

    scores [n, I+1] of the catalogue; or best int64 [n, W], the items it found, best first, 0
    padded; lists: scores [n, C] of the candidate lists by how they are drawn (where there are no
    `scores`); answers: texts by what the prompt showed.
    """

    scores: Tensor | None = None
    best: np.ndarray | None = None
    lists: Mapping[str, np.ndarray] = field(default_factory=dict)
    answers: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcomes:
    """All N cases, by what was ranked (a key of `metric_columns.STARTS`).

    ranks int64 [N]: of the target, from 1, ties against it; 0: not among the items found.
    firsts int64 [N]: the item in the first place (where the target ties for it, another).
    recommended int64 [N, top]: the head of the catalogue's ranking, 0 padded; None: not ranked.
    """

    ranks: dict[str, np.ndarray]
    firsts: dict[str, np.ndarray]
    recommended: np.ndarray | None
    answers: dict[str, list[str]]

    def table(self, cases: Cases) -> pl.DataFrame:
        """RECOMMENDATIONS: one row per case; of answers to several prompts, that to the first."""
        lists = self.recommended
        heads = [[]] * len(cases) if lists is None else [row[row > 0].tolist() for row in lists]
        nothing: list[str | None] = [None] * len(cases)
        answers = next(iter(self.answers.values()), nothing) or nothing
        columns = [cases.users, cases.positions, cases.targets, heads, answers]
        named = dict(zip(RECOMMENDATIONS, columns, strict=True))
        return pl.DataFrame(named, schema_overrides=RECOMMENDATIONS)


Ranks = tuple[np.ndarray, np.ndarray]


def judge(
    given: Callable[[slice], Response],
    cases: Cases,
    lists: Mapping[str, np.ndarray],
    top: int,
    *,
    rows: int = 1 << 30,
    progress: Progress = silent,
) -> Outcomes:
    """Ask for at most `rows` cases at a time; items taken before a case are never ranked in full.

    lists: int64 [N, C] by how they are drawn, see `fixed_lists`.
    """
    parts: dict[str, list[Ranks]] = {}
    heads: list[np.ndarray] = []
    answers: dict[str, list[str]] = {}
    step = max(1, min(rows, CHUNK_SCORES // (cases.sequences.n_items + 1)))
    for start in range(0, len(cases), step):
        where = slice(start, min(start + step, len(cases)))
        one = given(where)
        full = _in_full(one, cases.targets[where], cases.seen(where), top)
        if full is not None:
            own_ranks, head = full
            heads.append(head[:, :top])
            firsts = _first(own_ranks, head, cases.targets[where])
            parts.setdefault(CATALOGUE, []).append((own_ranks, firsts))
        for kind, items in lists.items():
            scores = one.lists.get(kind)
            if scores is None and one.scores is not None:
                own = torch.from_numpy(items[where]).to(one.scores.device)
                scores = one.scores.gather(1, own).cpu().numpy()
            if scores is not None:
                parts.setdefault(kind, []).append(_in_list(scores, items[where]))
        for kind, texts in one.answers.items():
            answers.setdefault(kind, []).extend(texts)
        progress(where.stop, len(cases), "cases")
    joined = {
        name: [np.concatenate(arrays) for arrays in zip(*own, strict=True)]
        for name, own in parts.items()
    }
    return Outcomes(
        {name: own[0] for name, own in joined.items()},
        {name: own[1] for name, own in joined.items()},
        np.concatenate(heads) if heads else None,
        answers,
    )


def by_item(item_scores: Tensor) -> Callable[[slice], Response]:
    """The same scores [I+1] for every case, such as popularity."""
    return lambda where: Response(scores=item_scores.expand(where.stop - where.start, -1))


def by_states(states: Tensor, matrix: Tensor, bias: Tensor) -> Callable[[slice], Response]:
    """A sequential recommender: states [N, d] of the cases, item matrix [I+1, d], bias [I+1]."""
    return lambda where: Response(scores=torch.addmm(bias, states[where], matrix.T))


def _in_full(one: Response, targets: np.ndarray, seen: np.ndarray, top: int) -> Ranks | None:
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


def _in_list(scores: np.ndarray, items: np.ndarray) -> Ranks:
    """Ranks of the targets (column 0) among their lists [n, C], and the items in front."""
    lists = CandidateLists(torch.from_numpy(items), torch.ones(len(items), dtype=torch.int64))
    ranks = ranks_in_lists(torch.from_numpy(scores), lists)[:, 0].numpy()
    others = np.where(items[:, 1:] > 0, scores[:, 1:], -np.inf)
    best = np.take_along_axis(items[:, 1:], others.argmax(1)[:, None], 1)[:, 0]
    return ranks, np.where(ranks == 1, items[:, 0], best)
