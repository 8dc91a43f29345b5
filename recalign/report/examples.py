"""A few users, drawn at random: what they took, what two policies wrote, what it was worth."""

import numpy as np
import polars as pl

from recalign.report.content import Example
from recalign.seeding import stream

GREEDY = -1  # sample number of the greedy reasoning


def draw_examples(
    n: int,
    base: pl.DataFrame,
    aligned: pl.DataFrame,
    histories: dict[int, np.ndarray],
    targets: dict[int, np.ndarray],
    titles: dict[int, str],
    worth: dict[tuple[str, int], float],
    truth: dict[int, str] | None = None,
) -> list[Example]:
    """`n` users of `base` and `aligned` (REASONINGS), greedy texts side by side.

    histories and targets map user_index to item indices, titles item_index to title; worth maps
    ("base" or "aligned", user_index) to the text's NDCG. Drawn, not picked: nobody chose them
    for how well they look.
    """
    texts = {
        name: dict(
            table.filter(pl.col("sample") == GREEDY).select("user_index", "reasoning").iter_rows()
        )
        for name, table in (("base", base), ("aligned", aligned))
    }
    users = sorted(texts["base"])
    drawn = stream(0, "examples").permutation(len(users))[:n]
    return [
        Example(
            user=str(user),
            history=[titles[int(item)] for item in histories[user]],
            base=texts["base"][user],
            aligned=texts["aligned"][user],
            targets=[titles[int(item)] for item in targets[user]],
            base_ndcg=worth.get(("base", user)),
            aligned_ndcg=worth.get(("aligned", user)),
            truth=(truth or {}).get(user, ""),
        )
        for user in sorted(users[int(place)] for place in drawn)
    ]


def liked_in_words(liked: pl.DataFrame) -> dict[int, str]:
    """The true tastes by user, as "genre War, Comedy; era 1970s"."""
    words: dict[int, list[str]] = {}
    grouped = liked.sort("user_index", "facet", "value").group_by(
        "user_index", "facet", maintain_order=True
    )
    for (user, facet), rows in grouped:
        words.setdefault(int(user), []).append(f"{facet} {', '.join(rows['value'])}")
    return {user: "; ".join(parts) for user, parts in words.items()}
