"""What each case leaves behind: the list that was recommended, and the answer."""

import polars as pl

from recalign.evaluation.next_items.cases import Cases
from recalign.evaluation.next_items.outcomes import Outcomes
from recalign.schemas import RECOMMENDATIONS


def recommendations_table(cases: Cases, outcomes: Outcomes) -> pl.DataFrame:
    """RECOMMENDATIONS: one row per case; of answers to several prompts, that to the first."""
    lists = outcomes.recommended
    answers = next(iter(outcomes.answers.values()), None)
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
