"""Stage reference: the SFT model's log-probabilities of all pairs, once for every alignment."""

import numpy as np

from recalign.artifacts.artifact import Artifact
from recalign.config import ReferenceConfig
from recalign.schemas import REJECTIONS
from recalign.smoothing.preferences import preference_table
from recalign.stored import open_policy
from recalign.titles.names import distinct_titles
from tasks.engine.job import Job
from tasks.engine.stage import stage
from tasks.tables import read_tables


@stage(version=2)
def reference(
    job: Job,
    config: ReferenceConfig,
    interactions: Artifact,
    splits: Artifact,
    sft: Artifact,
    rejections: Artifact,
) -> None:
    """Score chosen and rejected titles; smoothing and loss do not matter to it."""
    from recalign.alignment.reference import FILE, reference_log_probs  # torch: seconds
    from recalign.alignment.rows import encode_pairs, require_pairs

    tables = read_tables(interactions, splits)
    table = REJECTIONS.read(rejections)
    shape = (table.height, len(table["rejected"][0]))
    pairs = preference_table(table, distinct_titles(tables.items), np.zeros(shape))
    # Held as alignment holds it: the two must differ by what is learned alone.
    policy = open_policy(sft, job.runtime.root, job.device, trainable=True)
    rows = encode_pairs(pairs, policy, config.max_length)
    require_pairs(rows, config.max_length)
    scored = reference_log_probs(policy, rows, config, job.progress, kept=job.draft.work / FILE)
    scored.save(job.draft.path(FILE))
    job.draft.count(len(rows), rows.left_out)
    job.draft.tell({"log_prob_chosen": float(scored.chosen.mean())})
