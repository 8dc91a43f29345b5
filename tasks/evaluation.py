"""Stage evaluation: every row of the result table, on validation or test targets."""

from typing import TYPE_CHECKING

import polars as pl
import torch

from recalign.artifacts.manifest import Reference
from recalign.artifacts.store import Artifact
from recalign.config import EvaluationPhase
from recalign.evaluation.assemble import Backbone, encoded_lines, encoded_texts, scores_of
from recalign.evaluation.comparisons import dpo4rec_rows, policy_label
from recalign.evaluation.lists import candidate_lists
from recalign.evaluation.rows import Cases, Texts, evaluate_rows
from recalign.evaluation.table import summary_table
from recalign.evaluation.text_quality import facet_quality, liked_values, text_quality
from recalign.oracle.inference import padded, states_of
from recalign.oracle.storage import load_oracle
from recalign.policy.grammar import parse_reasoning
from recalign.policy.templates import REASONERS, template_reasonings
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.storage import load_recommender
from recalign.schemas import CANDIDATES, FACETS, REASONINGS, RESULTS, TEXTS, TRUTH
from recalign.schemas import read_table, write_table  # fmt: skip
from recalign.splits.candidates import history_popularity
from recalign.splits.phases import phase_of
from tasks.stage import Job, stage
from tasks.tables import Tables, read_tables

if TYPE_CHECKING:
    from tasks.run import Run

DECODINGS = {"greedy": True, "sampled": False}
SCORE = "validation_score"


def validation_score(run: "Run", validation: Reference) -> float | None:
    """What rounds are compared by: the aligned policy's mean full-depth NDCG on validation.

    Sampled reasonings, frozen recommender: what alignment optimises, read by one fixed yardstick.
    """
    artifact = run.open(validation)
    return artifact.manifest.figures[SCORE] if artifact else None
