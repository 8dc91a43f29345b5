"""Stage splits: every user's windows, and the fixed candidate lists."""

from recalign.artifacts.artifact import Artifact
from recalign.config import SplitsConfig
from recalign.report.plots import windows_picture
from recalign.report.stage_page import picture
from recalign.schemas import CANDIDATES, INTERACTIONS, WINDOWS
from recalign.sequences import Sequences
from recalign.splits.candidates import count_short, draw_candidates
from recalign.splits.windows import refuse_few_users, split_windows
from tasks.engine.job import Job
from tasks.engine.stage import stage


@stage(version=1)
def splits(job: Job, config: SplitsConfig, interactions: Artifact) -> None:
    """Cut each user's sequence into history | fit | reward | valid | test; draw negatives."""
    taken = INTERACTIONS.read(interactions)
    sequences = Sequences.of(taken, interactions.manifest.figures["items"])
    windows, counts = split_windows(taken, config)
    refuse_few_users(windows, config)
    candidates = draw_candidates(sequences, windows, config, job.progress)
    WINDOWS.write(windows, job.draft)
    CANDIDATES.write(candidates, job.draft)
    job.draft.count(windows.height, counts)
    job.draft.tell({"short_lists": count_short(candidates, config)})


@splits.shows
def windows_shown(made: Artifact) -> list[str]:
    """How long the windows are."""
    return [picture(windows_picture(WINDOWS.read(made)))]
