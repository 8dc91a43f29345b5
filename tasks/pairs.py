"""Stage pairs: best against worst of every user's samples."""

from recalign.artifacts.artifact import Artifact
from recalign.config import PairsConfig
from recalign.pairs.describe import flat_pairs
from recalign.pairs.select import SKIPPED, require_pairs, select_pairs
from recalign.reasonings.questions import by_question
from recalign.report.plots import distributions
from recalign.report.stage_page import picture, table_section
from recalign.schemas import COMPLETIONS, PROMPTS, REASONINGS, REWARDS
from tasks.engine.job import Job
from tasks.engine.stage import stage

N_SHOWN = 5  # pairs on the run page


@stage(version=2)
def pairs(job: Job, config: PairsConfig, rewards: Artifact, reasonings: Artifact) -> None:
    """Chosen earns the most, rejected the least; ties and malformed texts never make a pair."""
    table, skipped, report = select_pairs(
        REWARDS.read(rewards), REASONINGS.read(reasonings), PROMPTS.read(reasonings), config
    )
    require_pairs(table, skipped)
    table = by_question(table)
    COMPLETIONS.write(table, job.draft)
    SKIPPED.write(skipped, job.draft)
    job.draft.count(table.height, dict(skipped["reason"].value_counts().iter_rows()))
    job.draft.tell(report)


@pairs.shows
def pairs_shown(made: Artifact) -> list[str]:
    """Margins of all pairs, and the texts of the widest ones."""
    table = flat_pairs(COMPLETIONS.read(made))
    if table.is_empty():
        return []
    margins = distributions({"pairs": table["margin"].to_numpy()}, "Margins", "reward")
    widest = table.sort("margin", descending=True).select("chosen", "rejected", "margin")
    return [picture(margins), table_section("The widest margins", widest.head(N_SHOWN))]
