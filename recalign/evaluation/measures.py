"""Everything that is measured, as one value per case (NaN: not defined for this case).

Labels start with what was ranked: nothing for the whole catalogue, "list " and "popular list " for
the fixed candidate lists (uniform and popularity-drawn). See `LABELS`.
"""

from collections.abc import Mapping

import numpy as np

from recalign.evaluation.next_items import Cases
from recalign.evaluation.outcomes import FULL, Judged
from recalign.metrics import average_popularity, hit_rate, long_tail_share, mrr, ndcg
from recalign.sequences import Sequences

POPULAR = 0.05
"""Share of the catalogue that counts as popular in "popular hallucination"."""
LABELS = {
    "HR@k": "the target is among the first k, k 1, 5, 10",
    "NDCG@k": "1 / log2(1 + rank) within the first k, k 5, 10",
    "MRR": "1 / rank",
    "semantic hallucination": "among wrong first places: nearly the same text as the target",
    "semantic error": "the same among all cases: wrong, and nearly the same text",
    "popular hallucination": "among wrong first places: one of the most popular 5 %",
    "popular error": "the same among all cases",
    "popularity lift": "mean log(1 + popularity) of what is recommended, minus the target's",
    "long-tail share": "of the recommended list outside the most popular fifth",
    "average popularity": "of the recommended list, in interactions of the history windows",
    "answer HR@1": "the free answer is the target's title",
    "valid": "the free answer is a title of the catalogue",
    "already seen": "the free answer is something the user took before",
    "repeated": "the same free answer stood already for an earlier case of the user",
    "in candidates": "the free answer is one of the titles to pick from",
}
"""What each label means, after its start. Ranks in the catalogue leave out what the user took
before; popularity lift is that of the `top` first items there, and of the first place in lists."""


def ranking_measures(judged: Judged, list_length: int) -> dict[str, np.ndarray]:
    """HR@{1,5,10}, NDCG@{5,10} and MRR of every ranking: float64 [N] each.

    HR at a cut-off as long as the list is left out: it would be 1 for everyone.
    """
    table: dict[str, np.ndarray] = {}
    for start, ranks in judged.ranks.items():
        column, one = ranks[:, None], np.ones(len(ranks), dtype=np.int64)
        for k in (1, 5, 10):
            if start == FULL or k < list_length:
                table[f"{start}HR@{k}"] = hit_rate(column, one, k)
        for k in (5, 10):
            table[f"{start}NDCG@{k}"] = ndcg(column, one, k)
        table[f"{start}MRR"] = mrr(column, one, max(1, int(ranks.max(initial=1))))
    return table


def bias_measures(judged: Judged, cases: Cases, popularity: np.ndarray) -> dict[str, np.ndarray]:
    """How popular what is recommended is; popularity [I+1]: interactions in history windows."""
    logs = np.log1p(popularity)
    own = logs[cases.targets]
    table = {
        f"{start}popularity lift": np.where(firsts > 0, logs[firsts] - own, np.nan)
        for start, firsts in judged.firsts.items()
        if start != FULL
    }
    if judged.recommended is not None:
        lists = judged.recommended
        table["popularity lift"] = average_popularity(lists, logs) - own
        table["long-tail share"] = long_tail_share(lists, popularity)
        table["average popularity"] = average_popularity(lists, popularity)
    return table


def hallucination_measures(
    judged: Judged, cases: Cases, neighbours: np.ndarray, popularity: np.ndarray
) -> dict[str, np.ndarray]:
    """What stands wrongly in the first place: a near text, or a popular item.

    neighbours int64 [N, n]: the items whose texts are nearest to each target's, itself aside.
    """
    table: dict[str, np.ndarray] = {}
    for start, firsts in judged.firsts.items():
        wrong = judged.ranks[start] != 1
        semantic = (neighbours == firsts[:, None]).any(1)
        popular = long_tail_share(firsts[:, None], popularity, POPULAR) == 0
        for name, kind in (("semantic", semantic), ("popular", popular)):
            table[f"{start}{name} hallucination"] = np.where(wrong, kind, np.nan)
            table[f"{start}{name} error"] = (wrong & kind).astype(np.float64)
    return table


def answer_measures(
    start: str,
    items: np.ndarray,
    texts: list[str],
    cases: Cases,
    sequences: Sequences,
    candidates: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Free answers: items [N] that they name (0: none), their normalised texts, all cases counted.

    candidates [N, C]: the titles to pick from, where prompts showed any.
    """
    table = {
        "answer HR@1": items == cases.targets,
        "valid": items > 0,
        "already seen": _taken_before(items, cases, sequences),
        "repeated": _repeated(texts, cases.users),
    }
    if candidates is not None:
        table["in candidates"] = ((candidates == items[:, None]) & (candidates > 0)).any(1)
    return {f"{start}{name}": values.astype(np.float64) for name, values in table.items()}


def _taken_before(items: np.ndarray, cases: Cases, sequences: Sequences) -> np.ndarray:
    triples = zip(items.tolist(), cases.users.tolist(), cases.positions.tolist(), strict=True)
    return np.array([item in sequences.slice(user, 0, stop) for item, user, stop in triples])


def _repeated(texts: list[str], users: np.ndarray) -> np.ndarray:
    given: set[tuple[int, str]] = set()
    repeated = []
    for answer in zip(users.tolist(), texts, strict=True):
        repeated.append(answer in given)
        given.add(answer)
    return np.array(repeated)


def validation_label(table: Mapping[str, object]) -> str:
    """What settings are chosen by: NDCG@10 in the catalogue, or, unranked there, in the lists."""
    return "NDCG@10" if "NDCG@10" in table else "list NDCG@10"
