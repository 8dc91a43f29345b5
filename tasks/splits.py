"""Stage splits: every user's windows, and the fixed candidate lists."""

from recalign.artifacts.artifact import Artifact
from recalign.config import SplitsConfig
from recalign.report.plots import windows_picture
from recalign.report.stage_page import picture
from recalign.schemas import CANDIDATES, INTERACTIONS, LISTS, WINDOWS
from recalign.sequences import Sequences
from recalign.splits.candidates import count_short, draw_candidates
from recalign.splits.kar_lists import check_lists, draw_lists
from recalign.splits.windows import refuse_few_users, split_windows
from tasks.engine.job import Job
from tasks.engine.stage import stage


@stage(version=1)
def splits(job: Job, config: SplitsConfig, interactions: Artifact) -> None:
    """Cut each user's sequence into history | fit | reward | valid | test; draw items for lists."""
    taken = INTERACTIONS.read(interactions)
    sequences = Sequences.of(taken, interactions.manifest.figures["items"])
    windows, counts = split_windows(taken, config)
    refuse_few_users(windows, config)
    candidates = draw_candidates(sequences, windows, config, job.progress)
    WINDOWS.write(windows, job.draft)
    CANDIDATES.write(candidates, job.draft)
    if config.protocol == "kar":
        lists, left_over = draw_lists(taken, sequences.n_items, windows, config)
        proved = check_lists(lists, taken, windows, config)
        LISTS.write(lists, job.draft)
        job.draft.tell({"lists_proved": proved, "interactions_in_no_list": left_over})
    job.draft.count(windows.height, counts)
    job.draft.tell({"short_lists": count_short(candidates, config)})


@splits.shows
def windows_shown(made: Artifact) -> list[str]:
    """How long the windows are."""
    return [picture(windows_picture(WINDOWS.read(made)))]
