"""Align a policy on scored completions, by the optimiser that the settings name."""

from typing import TYPE_CHECKING

import polars as pl

from recalign.alignment.preferences import Known, align_on_pairs
from recalign.config import AlignmentConfig
from recalign.training.run import Trained, TrainingRun

if TYPE_CHECKING:
    from recalign.policy import Policy


def align(
    policy: "Policy",
    completions: pl.DataFrame,
    config: AlignmentConfig,
    run: TrainingRun,
    reference: Known = "initial",
) -> Trained:
    """Train the policy on the COMPLETIONS table, and save the weights of the lowest held-out loss.

    `reference` is "initial" (a PEFT model with its adapter off; a plain model as given),
    "previous" (the weights as given), or log-probabilities of the completions.
    """
    match config.optimiser:
        case "pairs":
            return align_on_pairs(policy, completions, config, run, reference)
