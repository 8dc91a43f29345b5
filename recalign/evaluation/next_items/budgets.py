"""What each row was trained on, and whether each control had the pairs and steps of its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recalign.config import ComparedRow
from recalign.evaluation.next_items.claims import CONTINUED
from recalign.schemas import BUDGETS

EQUAL = ("pairs", "planned_steps")
"""Columns of BUDGETS in which a control equals the rows it controls."""


def budget_table(trained: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """BUDGETS by label of the row, from the figures of its alignment; {} where there was none."""
    lines = []
    for label, figures in trained.items():
        line = {name: figures.get(name) for name in ("planned_steps", "steps", "best_step")}
        if figures:
            what = "pairs" if "pairs" in figures else "prompts"  # by the optimiser
            held_out = figures[f"held_out_{what}"]
            line |= {"pairs": figures[what] - held_out, "held_out_pairs": held_out}
        lines.append({"row": label} | line)
    return pl.DataFrame(lines, schema=BUDGETS)


def unequal_budgets(compared: Sequence[ComparedRow], budgets: pl.DataFrame) -> list[str]:
    """A sentence for every aligned row and its control whose pairs or planned steps differ."""
    spent = {line["row"]: [line[one] for one in EQUAL] for line in budgets.to_dicts()}
    controls = {
        control.label: [
            one.label
            for one in compared
            if one.kind == "aligned" and one.strategy == control.strategy
        ]
        for control in compared
        if control.kind in CONTINUED
    }
    return [
        f"{control} had {spent[control][0]} pairs and {spent[control][1]} steps, "
        f"{label} {spent[label][0]} and {spent[label][1]}"
        for control, labels in controls.items()
        for label in labels
        if spent[control] != spent[label]
    ]
