"""Stages for tests, in a module of their own: launched processes import them."""

import os

from recalign.config import SplitsConfig
from recalign.errors import UserError
from tasks.engine.job import Job
from tasks.engine.spread import is_mapped
from tasks.engine.stage import stage


@stage(version=1, trains=True)
def mistaken(job: Job, config: SplitsConfig) -> None:
    """Fails in the process that does not lead."""
    if not job.leads:
        raise UserError(f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} "
                        "has no such setting")  # fmt: skip


@stage(version=1, trains=True)
def spreading(job: Job, config: SplitsConfig) -> None:
    """Tells whether a process of a launch would spread its shards over workers of its own."""
    if job.leads:
        job.draft.tell({"spreads": is_mapped(job.runtime), "of": int(os.environ["WORLD_SIZE"])})
