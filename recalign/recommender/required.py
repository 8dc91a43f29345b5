"""The signal that a recommender has to find in reasonings before anything is aligned on rewards."""

import math
from statistics import NormalDist

from recalign.errors import NO_SIGNAL, NoSignalError

MIN_DIFFERENCE = 1e-3
"""Nats: a smaller gain is no reward to align on, however sure it is."""

Figures = dict[str, float | int | bool]
"""See `signal.compare`."""


def users_needed(figures: Figures) -> int | None:
    """Held-out users with whom a difference of the size seen would be found four times in five.

    n ((z_.975 + z_.8) s / d)^2 with the standard error s of n users, which is half the length of
    their interval in units of Student's t; None: the difference is not positive, or of a single
    user.
    """
    users = float(figures["users"])
    difference, low = float(figures["log_prob_difference"]), float(figures["log_prob_low"])
    half = difference - low
    if difference <= 0 or half == float("inf"):
        return None
    error = half / t_quantile(users - 1)
    found = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    return math.ceil(users * (found * error / difference) ** 2)


def t_quantile(degrees: float) -> float:
    """The 97.5 % quantile of Student's t, for 95 % intervals.

    Its expansion in 1/degrees around the normal one (Abramowitz and Stegun 26.7.5), good to .1 %
    from 5 degrees of freedom on.
    """
    n, x = degrees, NormalDist().inv_cdf(0.975)
    return (
        x
        + (x**3 + x) / (4 * n)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * n**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * n**3)
    )


def described(figures: Figures) -> str:
    """What the guard saw, in a sentence without its end."""
    low, high = figures["log_prob_low"], figures["log_prob_high"]
    return (
        f"log-likelihood (nats) of what {figures['users']} held-out users took: "
        f"{figures['log_prob_real']:.4f} with their own reasonings, "
        f"{figures['log_prob_shuffled']:.4f} with shuffled ones, "
        f"{figures['log_prob_no_text']:.4f} without any; difference "
        f"{figures['log_prob_difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def require_signal(figures: Figures) -> None:
    """NoSignalError unless real reasonings beat shuffled ones on users held out of the fit."""
    if figures["signal"]:
        return
    raise NoSignalError(
        f"{NO_SIGNAL}: {described(figures)}. The whole interval "
        f"must lie above 0, and the difference be at least {MIN_DIFFERENCE} nats.{_power(figures)} "
        "Look at a few reasonings (do they say something about the items?), give the fit more "
        "users or a larger recommender.held_out, or set recommender.guard to false to go on"
        " regardless"
    )


def why_refused(figures: Figures, number: int) -> str:
    """Why this round may not be rewarded by a recommender fitted after the round before it.

    A clause with what the guard saw; empty where there is a signal.
    """
    if figures["signal"]:
        return ""
    low, high = figures["log_prob_low"], figures["log_prob_high"]
    return (
        f"the recommender fitted on the texts of round {number - 1} does not tell users' own from "
        f"those of others ({figures['log_prob_difference']:+.4f} nats [{low:+.4f}, {high:+.4f}] on "
        f"{figures['users']} held-out users), so rewards of round {number} would be noise"
    )


def _power(figures: Figures) -> str:
    """How many users would make a difference of this size sure, where more would help."""
    needed = users_needed(figures)
    if needed is None or needed <= int(figures["users"]):
        return ""
    return f" A difference of this size is found with some {needed:,} held-out users."
