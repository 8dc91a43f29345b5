"""The signal that a recommender has to find in reasonings before anything is aligned on rewards."""

from recalign.errors import NoSignalError

MIN_DIFFERENCE = 1e-3
"""Nats: a smaller gain is no reward to align on, however sure it is."""

Figures = dict[str, float | int | bool]
"""See `signal.compare`."""


def require_signal(figures: Figures) -> None:
    """NoSignalError unless real reasonings beat shuffled ones on users held out of the fit."""
    if figures["signal"]:
        return
    raise NoSignalError(
        "the recommender does not tell a user's own reasonings from those of other users, so "
        "rewards would be noise: log-probability of the held-out targets "
        f"{figures['log_prob_real']:.4f} with their own, {figures['log_prob_shuffled']:.4f} with "
        f"shuffled, {figures['log_prob_no_text']:.4f} without reasonings; difference "
        f"{figures['log_prob_difference']:+.4f} [{figures['log_prob_low']:+.4f}, "
        f"{figures['log_prob_high']:+.4f}] nats over {figures['users']} users, where a lower bound "
        f"above 0 and at least {MIN_DIFFERENCE} are needed. Look at a few reasonings (do they say "
        "something about the items?), give the fit more users or a larger recommender.held_out, "
        "or set recommender.guard to false to go on regardless"
    )
