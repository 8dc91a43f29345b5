"""Align a policy on scored completions, by the optimiser that the settings name."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import polars as pl

from recalign.alignment.divergence import refuse_worse
from recalign.alignment.group_optimisers import align_on_groups
from recalign.alignment.groups import encode_groups
from recalign.alignment.preferences import align_on_pairs
from recalign.alignment.reference import (
    ReferenceLogProbs,
    TokenLogProbs,
    kept_for,
    reference_log_probs,
    token_log_probs_of,
)
from recalign.alignment.rows import encode_pairs
from recalign.config import AlignmentConfig
from recalign.policy import Policy
from recalign.progress import Progress
from recalign.training.run import Trained, TrainingRun

Known = Literal["initial", "previous"] | ReferenceLogProbs | TokenLogProbs


def align(
    policy: Policy,
    completions: pl.DataFrame,
    config: AlignmentConfig,
    run: TrainingRun,
    reference: Known = "initial",
) -> Trained:
    """Train the policy on the COMPLETIONS table, and save the weights of the lowest held-out loss.

    Raises UserError when training diverged, unless settings allow that.

    `reference` is "initial" (a PEFT model with its adapter off; a plain model as given),
    "previous" (the weights as given), or what `score_reference` made of the completions.
    """
    match config.optimiser:
        case "pairs":
            assert not isinstance(reference, TokenLogProbs)
            trained = align_on_pairs(policy, completions, config, run, reference)
        case _:  # all that read every completion of a prompt
            assert not isinstance(reference, ReferenceLogProbs)
            trained = align_on_groups(policy, completions, config, run, reference)
    if not config.allow_worse:
        refuse_worse(trained.figures, config, run.stage)
    return trained


def score_reference(
    first: Callable[[], Policy],
    completions: pl.DataFrame,
    config: AlignmentConfig,
    path: Path,
    progress: Progress,
) -> Known:
    """The completions' log-probabilities under the policy `first`, as the optimiser reads them.

    They are kept beside `path`, and found there when the run goes on after a stop.
    """
    policy = first()
    if config.optimiser == "pairs":
        rows = encode_pairs(completions, policy, config.max_length)
        made = kept_for(rows, path)
        if not made.exists():
            reference_log_probs(policy, rows, config, progress, kept=path).save(made)
        return ReferenceLogProbs.load(made)
    groups = encode_groups(completions, policy, config)
    made = kept_for(groups, path)
    if not made.exists():
        token_log_probs_of(policy, groups, config, progress, kept=path).save(made)
    return TokenLogProbs.load(made)
