"""When a training has made the policy worse, by its held-out loss."""

from collections.abc import Mapping
from typing import Any

from recalign.config import AlignmentConfig
from recalign.errors import FailedRoundError

HIGHEST_KL = "held_out_kl_highest"
"""Figure of an alignment: the most nats a token that it was away from its reference on the way."""
REWARD_STD = "reward_std"
"""Figure of an alignment by unscaled advantages: mean standard deviation of a prompt's rewards."""
WORSE = 1.05
"""Held-out loss over that of the start: below, a few held-out users' noise can explain it."""


def refuse_worse(figures: Mapping[str, Any], config: AlignmentConfig, stage: str) -> None:
    """FailedRoundError when even the best checkpoint is clearly worse than the policy before it.

    figures: `held_out_loss_start` and `held_out_loss`, of the kept checkpoint, and REWARD_STD where
    advantages are not scaled. A loss that is not a number is worse, too.
    """
    before, after = figures["held_out_loss_start"], figures["held_out_loss"]
    # The loss of grpo starts at 0; a standard deviation of the rewards is its unit, or is told.
    unit = figures.get(REWARD_STD, 1) if config.optimiser == "grpo" else before
    room = (WORSE - 1) * unit
    if not after <= before + room:
        raise FailedRoundError(
            f"{stage}: training diverged: the held-out loss was {before:.4g} before the first step "
            f"and at best {after:.4g} after it; lower {stage}.learning_rate (now "
            f"{config.learning_rate:g}), or set {stage}.allow_worse=true to keep such a policy"
        )


def refuse_far(kl: float, most: float, when: str) -> None:
    """FailedRoundError for a policy far from its reference: it no longer writes what was rewarded.

    kl: of held-out completions, in nats a token.
    """
    if kl > most:
        raise FailedRoundError(
            f"alignment: the policy is {kl:.3g} nats a token away from its reference {when},"
            f" more than alignment.grpo.max_kl {most:g}: lower alignment.learning_rate or raise"
            " alignment.grpo.kl_weight"
        )
