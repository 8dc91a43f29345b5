"""What rules make of histories: the values that are liked most, and texts by a template."""

import numpy as np
import polars as pl

from recalign.embedded.reasoners import facets_of, strongest_values
from recalign.reasonings.prompts import Renderer
from recalign.reasonings.questions import one_text, questions_of

N_LIKED = 3  # values of an attribute that a text names


def liked_values(
    items: pl.DataFrame, histories: list[np.ndarray], n: int = N_LIKED
) -> list[dict[str, list[str]]]:
    """See `strongest_values`; nothing is liked where no item of ITEMS has attributes."""
    if not items["attributes"].list.len().sum():
        return [{} for _ in histories]
    return strongest_values(facets_of(items), histories, n)


def rule_texts(template: str, items: pl.DataFrame, histories: list[np.ndarray]) -> list[str]:
    """What the template (a name or path; see `policy.warm_up.text`) writes about each history."""
    tell = Renderer(template, items)
    liked = liked_values(items, histories)
    return [
        one_text(questions_of(tell(one.tolist(), liked=own)))
        for one, own in zip(histories, liked, strict=True)
    ]
