"""Stage histories: everything that users did up to now, newer interactions laid over a run's."""

from pathlib import Path

import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import InteractionsConfig
from recalign.interactions.newer import RunTables, extend, read_newer
from recalign.report.stage_page import table_section
from recalign.schemas import INTERACTIONS, ITEMLESS_USERS, ITEMS, UNKNOWN_ITEMS, USERS
from tasks.engine.job import Job
from tasks.engine.stage import stage

N_NAMED = 5  # unknown items in the figures; all of them are in the table


@stage(version=1)
def histories(
    job: Job, config: InteractionsConfig, interactions: Artifact, files: dict[str, list[Path]]
) -> None:
    """The tables of `interactions` with the newer rows in them; what is unknown is named.

    It holds what splits keep apart, test targets included: recommending looks at everything, so
    nothing here may ever be trained or judged on.
    """
    tables = (table.read(interactions) for table in (INTERACTIONS, ITEMS, USERS))
    known = RunTables(*tables)
    (path,) = files["newer"]
    newer = read_newer(path, config, known, job.progress)
    found = extend(known, newer, config)
    INTERACTIONS.write(found.interactions, job.draft)
    ITEMS.write(known.items, job.draft)
    USERS.write(found.users, job.draft)
    UNKNOWN_ITEMS.write(found.unknown_items, job.draft)
    ITEMLESS_USERS.write(found.itemless_users, job.draft)
    job.draft.count(found.interactions.height, found.dropped)
    job.draft.tell(
        {
            "newer_rows": newer.height,
            "users": found.users.height,
            "new_users": found.users.height - known.users.height,
            "users_with_unknown_items_only": found.itemless_users.height,
            "unknown_items": found.unknown_items.height,
            "unknown_items_named": found.unknown_items["item_id"].head(N_NAMED).to_list(),
        }
    )


@histories.shows
def unknown_shown(made: Artifact) -> list[str]:
    """The items that the catalogue lacks, the most taken first."""
    unknown: pl.DataFrame = UNKNOWN_ITEMS.read(made)
    return [table_section("Unknown items", unknown.head(20))] if unknown.height else []
