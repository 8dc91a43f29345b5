"""From what a recommender makes of each case to ranks, first places and recommended lists."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.artifacts.shards import keys_of_shards, tables_in_shards
from recalign.evaluation.candidate_lists import CandidateLists, ranks_in_lists
from recalign.evaluation.next_items.cases import Cases
from recalign.metric_columns import CATALOGUE
from recalign.progress import Progress, silent
from recalign.ranking import target_ranks, top_items
from recalign.schemas import RECOMMENDATIONS, Schema

CASES = "cases "  # how the key of a shard begins; what follows are their places
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


JUDGED: Schema = {  # one row per case and ranking, or prompt, of it
    "ranked": pl.String,  # a key of `metric_columns.STARTS`
    "rank": pl.Int32,  # of the target, from 1, ties against it; 0: not found; null: not ranked
    "first": pl.Int32,  # the item in the first place (where the target ties for it, another)
    "head": pl.List(pl.Int32),  # of the catalogue's ranking, 0 padded; null elsewhere
    "answer": pl.String,  # to the prompt that shows this list; null: none asked
}


@dataclass(frozen=True)
class Outcomes:
    """All N cases, by what was ranked (a key of `metric_columns.STARTS`).

    ranks, firsts int64 [N]: columns of JUDGED.
    recommended int64 [N, top]: the head of the catalogue's ranking, 0 padded; None: not ranked.
    """

    ranks: dict[str, np.ndarray]
    firsts: dict[str, np.ndarray]
    recommended: np.ndarray | None
    answers: dict[str, list[str]]

    @classmethod
    def of(cls, judged: pl.DataFrame, order: np.ndarray) -> "Outcomes":
        """What a JUDGED table holds; order: where each case's rows stand in it, int64 [N]."""
        names = judged["ranked"].unique(maintain_order=True)
        parts = {name: judged.filter(ranked=name)[order] for name in names}
        ranked = {name: rows for name, rows in parts.items() if not rows["rank"].null_count()}
        answered = {name: rows for name, rows in parts.items() if not rows["answer"].null_count()}
        heads = ranked[CATALOGUE]["head"].to_list() if CATALOGUE in ranked else None
        return cls(
            {name: rows["rank"].cast(pl.Int64).to_numpy() for name, rows in ranked.items()},
            {name: rows["first"].cast(pl.Int64).to_numpy() for name, rows in ranked.items()},
            None if heads is None else np.array(heads, np.int64),
            {name: rows["answer"].to_list() for name, rows in answered.items()},
        )

    def table(self, cases: Cases) -> pl.DataFrame:
        """RECOMMENDATIONS: one row per case; of answers to several prompts, that to the first."""
        lists = self.recommended
        heads = [[]] * len(cases) if lists is None else [row[row > 0].tolist() for row in lists]
        nothing: list[str | None] = [None] * len(cases)
        answers = next(iter(self.answers.values()), nothing) or nothing
        columns = [cases.users, cases.positions, cases.targets, heads, answers]
        named = dict(zip(RECOMMENDATIONS, columns, strict=True))
        return pl.DataFrame(named, schema_overrides=RECOMMENDATIONS)


def judge(
    given: Callable[[np.ndarray], Response],
    cases: Cases,
    lists: Mapping[str, np.ndarray],
    top: int,
    work: Path,
    *,
    parts: Sequence[np.ndarray] | None = None,
    progress: Progress = silent,
) -> Outcomes:
    """Ask for some cases at a time; items taken before a case are never ranked in full.

    lists: int64 [N, C] by how they are drawn, see `fixed_lists`. `parts`: places of the cases that
    are asked for together, int64 [n] each; by default as many as `cases_at_once`, in their order.
    `work` belongs to one recommender and these cases: what was judged of them before a kill is
    found there, and not asked again, however many are asked for together now.
    """
    if parts is None:
        step = cases_at_once(cases)
        parts = [np.arange(at, min(at + step, len(cases))) for at in range(0, len(cases), step)]
    parts = _after_a_kill(parts, work)
    ends = np.cumsum([len(part) for part in parts])

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for number in missing:
            where = parts[number]
            own = {kind: items[where] for kind, items in lists.items()}
            targets, seen = cases.targets[where], cases.seen(where)
            yield number, _judged(given(where), targets, seen, own, top)
            progress(int(ends[number]), len(cases), "cases")

    keys = [f"{CASES}{part.tolist()}" for part in parts]
    judged = pl.concat(tables_in_shards(keys, compute, work, JUDGED))
    return Outcomes.of(judged, np.argsort(np.concatenate(parts)))


def _after_a_kill(parts: Sequence[np.ndarray], work: Path) -> list[np.ndarray]:
    """The parts that lie in `work` already, then what they leave of `parts`."""
    told = (json.loads(key.removeprefix(CASES)) for key in keys_of_shards(work))
    done = [np.array(places, np.int64) for places in told]
    judged = np.concatenate([*done, np.empty(0, np.int64)])
    left = (part[~np.isin(part, judged)] for part in parts)
    return done + [part for part in left if len(part)]


def cases_at_once(cases: Cases) -> int:
    """Of how many cases the scores of the whole catalogue are held at a time."""
    return max(1, CHUNK_SCORES // (cases.sequences.n_items + 1))


def _judged(
    one: Response, targets: np.ndarray, seen: np.ndarray, lists: dict[str, np.ndarray], top: int
) -> pl.DataFrame:
    """JUDGED of n cases; targets [n], seen [n, P], lists [n, C]."""
    found: dict[str, dict[str, Any]] = {}
    full = _in_full(one, targets, seen, top)
    if full is not None:
        ranks, head = full
        firsts = _first(ranks, head, targets)
        found[CATALOGUE] = {"rank": ranks, "first": firsts, "head": head[:, :top].tolist()}
    for kind, items in lists.items():
        scores = one.lists.get(kind)
        if scores is None and one.scores is not None:
            own = torch.from_numpy(items).to(one.scores.device)
            scores = one.scores.gather(1, own).cpu().numpy()
        if scores is not None:
            found[kind] = dict(zip(("rank", "first"), _in_list(scores, items), strict=True))
    for kind, texts in one.answers.items():
        found.setdefault(kind, {})["answer"] = texts
    nothing = [None] * len(targets)
    tables = [
        pl.DataFrame(
            {"ranked": [name] * len(targets)}
            | {column: own.get(column, nothing) for column in JUDGED if column != "ranked"},
            schema_overrides=JUDGED,
            strict=False,
        )
        for name, own in found.items()
    ]
    return pl.concat(tables)


def by_item(item_scores: Tensor) -> Callable[[np.ndarray], Response]:
    """The same scores [I+1] for every case, such as popularity."""
    return lambda where: Response(scores=item_scores.expand(len(where), -1))


def by_states(states: Tensor, matrix: Tensor, bias: Tensor) -> Callable[[np.ndarray], Response]:
    """A sequential recommender: states [N, d] of the cases, item matrix [I+1, d], bias [I+1]."""
    return lambda where: Response(scores=torch.addmm(bias, states[where], matrix.T))


def _in_full(
    one: Response, targets: np.ndarray, seen: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray] | None:
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


def _in_list(scores: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the targets (column 0) among their lists [n, C], and the items in front."""
    lists = CandidateLists(torch.from_numpy(items), torch.ones(len(items), dtype=torch.int64))
    ranks = ranks_in_lists(torch.from_numpy(scores), lists)[:, 0].numpy()
    others = np.where(items[:, 1:] > 0, scores[:, 1:], -np.inf)
    best = np.take_along_axis(items[:, 1:], others.argmax(1)[:, None], 1)[:, 0]
    return ranks, np.where(ranks == 1, items[:, 0], best)
