"""Stage reference: the SFT model's log-probabilities of all pairs, once for every alignment."""

import numpy as np

from recalign.alignment.reference import reference_log_probs
from recalign.alignment.rows import encode_pairs
from recalign.artifacts.artifact import Artifact
from recalign.config import ReferenceConfig
from recalign.schemas import REJECTIONS, read_table
from recalign.smoothing.preferences import preference_table
from recalign.titles.names import distinct_titles
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.rejections import TABLE
from tasks.sft import open_titles
from tasks.tables import read_tables

REFERENCE = "reference.npz"


@stage(version=1)
def reference(
    job: Job,
    config: ReferenceConfig,
    interactions: Artifact,
    splits: Artifact,
    sft: Artifact,
    rejections: Artifact,
) -> None:
    """Score chosen and rejected titles; smoothing and loss do not matter to it."""
    tables = read_tables(interactions, splits)
    table = read_table(rejections.path(TABLE), REJECTIONS)
    shape = (table.height, len(table["rejected"][0]))
    pairs = preference_table(table, distinct_titles(tables.items), np.zeros(shape))
    policy = open_titles(sft, None, job.device)
    rows = encode_pairs(pairs, policy.encode_prompt, policy.encode_completion, config.max_length)
    scored = reference_log_probs(
        policy.model, rows, pad_token_id=policy.pad_id, batch_size=config.micro_batch_size,
        autocast=config.precision == "bfloat16", progress=job.progress,
    )  # fmt: skip
    scored.save(job.draft.path(REFERENCE))
    job.draft.count(len(rows), rows.left_out)
    job.draft.tell({"log_prob_chosen": float(scored.chosen.mean())})
