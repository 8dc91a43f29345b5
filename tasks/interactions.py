"""Stage interactions: raw data of any source to typed Parquet tables."""

import logging
from pathlib import Path

from recalign.artifacts.roots import local_root
from recalign.config import InteractionsConfig, Runtime
from recalign.interactions.ingest import ingest
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files
from recalign.schemas import APPEAL, INTERACTIONS, ITEMS, TRUTH, USERS
from recalign.world.as_source import with_indices
from recalign.world.synthesise import synthesise
from tasks.engine.job import Job
from tasks.engine.progress import stage_progress
from tasks.engine.stage import stage

log = logging.getLogger(__name__)


def raw_files(
    config: InteractionsConfig, runtime: Runtime, *, download: bool = True
) -> dict[str, list[Path]]:
    """The raw files this source consists of, downloaded first if need be and allowed."""
    cache = local_root(runtime.root) / ".cache" / "raw"
    with stage_progress("download") as progress:
        found = source_files(config, cache, progress=progress, download=download)
    return {"raw": found} if found else {}


@stage(version=1)
def interactions(
    job: Job, config: InteractionsConfig, files: dict[str, list[Path]] | None = None
) -> None:
    """Read, filter and index the interactions and items of the source."""
    world = synthesise(config.synthetic) if config.source == "synthetic" else None
    if world:
        data = ingest(RawTables(world.interactions, world.items), config)
    else:  # handed over unnamed: ingest lets go of each raw column as it goes
        data = ingest(read_source(config, (files or {})["raw"], job.progress), config)
    INTERACTIONS.write(data.interactions, job.draft)
    ITEMS.write(data.items, job.draft)
    USERS.write(data.users, job.draft)
    if world:
        truth, appeal = with_indices(
            world.truth, world.appeal, data.users, data.items, world.interactions
        )
        TRUTH.write(truth, job.draft)
        APPEAL.write(appeal, job.draft)
    job.draft.count(data.interactions.height, data.dropped)
    for remark in data.remarks:
        log.warning("interactions: %s", remark)
    sizes = {"users": data.users.height, "items": data.items.height}
    job.draft.tell(sizes | {"noted": data.noted, "remarks": data.remarks})
