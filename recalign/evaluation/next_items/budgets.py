"""What each row was trained on, and whether the rows of a claim had the same pairs and steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recalign.artifacts.lineage import aligned_on
from recalign.config import ComparedRow
from recalign.evaluation.next_items.claims import questions
from recalign.schemas import BUDGETS

EQUAL = ("pairs", "planned_steps")
"""Columns of BUDGETS that are equal in two rows of an equal budget."""


def budget_table(trained: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """BUDGETS by label of the row, from the figures of its alignment; {} where there was none."""
    lines = []
    for label, figures in trained.items():
        line = {name: figures.get(name) for name in ("planned_steps", "steps", "best_step")}
        if figures:
            pairs, held_out = aligned_on(figures)
            line |= {"pairs": pairs, "held_out_pairs": held_out}
        lines.append({"row": label} | line)
    return pl.DataFrame(lines, schema=BUDGETS)


def unequal_budgets(compared: Sequence[ComparedRow], budgets: pl.DataFrame) -> list[str]:
    """A sentence for every two rows of a claim whose pairs or planned steps differ.

    Rows that no budget was spent on, such as the SFT model, do not count.
    """
    trained = budgets.drop_nulls(EQUAL).to_dicts()
    spent = {line["row"]: [line[one] for one in EQUAL] for line in trained}
    asked = dict.fromkeys(pair for pairs in questions(compared).values() for pair in pairs)
    return [
        f"{base} had {spent[base][0]} pairs and {spent[base][1]} steps, "
        f"{row} {spent[row][0]} and {spent[row][1]}"
        for row, base in asked
        if row in spent and base in spent and spent[row] != spent[base]
    ]
