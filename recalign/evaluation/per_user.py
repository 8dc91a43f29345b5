"""What a row of the comparison leaves behind: values per user, and its recommended lists."""

from collections.abc import Mapping

import numpy as np
import polars as pl
import torch

from recalign.evaluation.next_items import Cases
from recalign.evaluation.outcomes import Judged
from recalign.metrics import coverage, gini
from recalign.ranking import row_chunks, top_items
from recalign.schemas import PER_USER, RECOMMENDATIONS


def per_user_table(cases: Cases, measures: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """PER_USER: each measure's mean over a user's cases, null where it is defined for none.

    Users in order, measures in order of `measures` for each.
    """
    users, place = np.unique(cases.users, return_inverse=True)
    columns = []
    for values in measures.values():
        given = ~np.isnan(values)
        total = np.bincount(place, np.where(given, values, 0.0), minlength=len(users))
        n = np.bincount(place, given, minlength=len(users))
        columns.append(total / np.where(n > 0, n, np.nan))
    table = pl.DataFrame(
        {
            "user_index": np.repeat(users, len(columns)),
            "metric": list(measures) * len(users),
            "value": np.stack(columns, 1).ravel(),
        },
        schema_overrides=PER_USER,
    )
    return table.with_columns(pl.col("value").fill_nan(None))


def means_over_users(per_user: pl.DataFrame) -> dict[str, float | None]:
    """Mean of each metric over the users it is defined for; None: for no user."""
    means = per_user.group_by("metric", maintain_order=True).agg(pl.col("value").mean())
    return dict(means.iter_rows())


def spread(judged: Judged, n_items: int) -> dict[str, float]:
    """Coverage and Gini coefficient of all recommended lists together; {} where none were made."""
    if judged.recommended is None:
        return {}
    return {
        "coverage": coverage(judged.recommended, n_items),
        "gini": gini(judged.recommended, n_items),
    }


def recommendations_table(cases: Cases, judged: Judged) -> pl.DataFrame:
    """RECOMMENDATIONS: one row per case; of answers to several prompts, that to the first."""
    lists = judged.recommended
    answers = next(iter(judged.answers.values()), None)
    heads = [[]] * len(cases) if lists is None else [row[row > 0].tolist() for row in lists]
    return pl.DataFrame(
        {
            "user_index": cases.users,
            "position": cases.positions,
            "target": cases.targets,
            "recommended": heads,
            "answer": answers or [None] * len(cases),
        },
        schema_overrides=RECOMMENDATIONS,
    )


def nearest_items(vectors: np.ndarray, targets: np.ndarray, n: int) -> np.ndarray:
    """The `n` items whose text vectors have the highest cosine with each target's: int64 [N, n].

    vectors [I+1, e]; the target itself and padding (row 0) are left out.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = torch.from_numpy(vectors / np.maximum(lengths, 1e-12))
    items, rows = np.unique(targets, return_inverse=True)
    own = torch.from_numpy(items)
    near = [
        top_items(unit[own[s]] @ unit.T, own[s, None], n) for s in row_chunks(len(own), len(unit))
    ]
    return torch.cat(near).numpy()[rows]
