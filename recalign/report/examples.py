"""A few users, drawn at random: what they took, what two policies wrote, what it was worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recalign.report.content import Example
from recalign.seeding import stream

GREEDY = -1  # sample number of the greedy reasoning


@dataclass(frozen=True)
class ExampleTexts:
    """Two sets of REASONINGS, and what each greedy text was worth."""

    base: pl.DataFrame
    aligned: pl.DataFrame
    worth: Mapping[tuple[str, int], float]
    """NDCG by "base" or "aligned" and user_index."""


@dataclass(frozen=True)
class TakenItems:
    """What the users took, as item indices by user_index, and how the items are called."""

    histories: Mapping[int, np.ndarray]
    targets: Mapping[int, np.ndarray]
    titles: Mapping[int, str]
    truth: Mapping[int, str] = field(default_factory=dict)
    """What each user truly likes, in words, where it is known."""


def draw_examples(n: int, written: ExampleTexts, taken: TakenItems) -> list[Example]:
    """`n` users, greedy texts side by side.

    Drawn, not picked: nobody chose them for how well they look.
    """
    base, aligned = _greedy(written.base), _greedy(written.aligned)
    users = sorted(base)
    drawn = stream(0, "examples").permutation(len(users))[:n]
    return [
        Example(
            user=str(user),
            history=[taken.titles[int(item)] for item in taken.histories[user]],
            base=base[user],
            aligned=aligned[user],
            targets=[taken.titles[int(item)] for item in taken.targets[user]],
            base_ndcg=written.worth.get(("base", user)),
            aligned_ndcg=written.worth.get(("aligned", user)),
            truth=taken.truth.get(user, ""),
        )
        for user in sorted(users[int(place)] for place in drawn)
    ]


def _greedy(reasonings: pl.DataFrame) -> dict[int, str]:
    kept = reasonings.filter(pl.col("sample") == GREEDY)
    return dict(kept.select("user_index", "reasoning").iter_rows())


def liked_in_words(liked: pl.DataFrame) -> dict[int, str]:
    """The true tastes by user, as "genre War, Comedy; era 1970s"."""
    words: dict[int, list[str]] = {}
    grouped = liked.sort("user_index", "facet", "value").group_by(
        "user_index", "facet", maintain_order=True
    )
    for (user, facet), rows in grouped:
        words.setdefault(int(user), []).append(f"{facet} {', '.join(rows['value'])}")
    return {user: "; ".join(parts) for user, parts in words.items()}
