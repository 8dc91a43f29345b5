"""Intervals that hold for other users and other training seeds, and what they allow to say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from recalign.errors import UserError

LEVEL = 0.95
POWER = 0.8
TAIL = 1e-9  # of the seeds' chi-squared, beyond which nothing is summed
NODES = 200  # at which that distribution is summed
DRAWS = 40  # equally likely values of it, for the power


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds and users, and how far off both can make it."""

    mean: float
    per_seed: tuple[float, ...]
    users: float
    """Variance that users drawn anew, the same for all seeds, give the mean."""
    spread: float
    """Variance of `per_seed` over their number: of seeds drawn anew, with users' noise in it."""
    noise: float
    """The part of `spread` that is users' noise."""
    n_users: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean."""
        half = self._half(self.spread)
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of 0; 1 where nothing differs at all."""
        return self._beyond(abs(self.mean), self.spread) if self.mean else 1.0

    @property
    def detectable(self) -> float:
        """The smallest true effect whose 95 % interval leaves zero out in 80 % of such runs.

        A mean over what the seeds' own variance may be, and over what the next run will see of it.
        """
        from scipy import stats

        if self.users == self.spread == 0:
            return 0.0
        chances = (np.arange(DRAWS) + 0.5) / DRAWS
        draws = stats.chi2.ppf(chances, self._freedom) if self._freedom else np.ones(1)
        seeds = self._seeds(self.spread, draws)
        spreads = np.outer(self.noise + seeds, draws) / max(self._freedom, 1)
        known = np.unique(np.quantile(spreads, np.linspace(0, 1, DRAWS)))
        needed = np.interp(spreads, known, [self._half(one) for one in known])
        errors = self._errors(seeds)[:, None]
        return _root(lambda effect: POWER - self._t((effect - needed) / errors).mean())

    def _half(self, spread: float) -> float:
        """Half the interval's length, had the seeds this spread."""
        if self.users == spread == 0:
            return 0.0
        return _root(lambda size: self._beyond(size, spread) - (1 - LEVEL))

    def _beyond(self, size: float, spread: float) -> float:
        """Chance of a mean at least this far from a true 0, had the seeds this spread."""
        draws, weights = _chi_squared(self._freedom)
        return 2 * float(self._t(-size / self._errors(self._seeds(spread, draws))) @ weights)

    def _errors(self, seeds: np.ndarray) -> np.ndarray:
        """Standard errors of the mean, never zero, for what seeds alone give its variance."""
        return np.sqrt(np.maximum(self.users + seeds, np.finfo(float).tiny))

    def _seeds(self, spread: float, draws: np.ndarray) -> np.ndarray:
        """What seeds alone give the mean's variance, [K], for these draws of its chi-squared."""
        return np.maximum(spread * self._freedom / draws - self.noise, 0)

    def _t(self, values: np.ndarray) -> np.ndarray:
        from scipy import special  # late: the command line does without it

        return np.asarray(special.stdtr(self.n_users - 1, values))

    @property
    def _freedom(self) -> int:
        return len(self.per_seed) - 1


def estimate(per_seed: Sequence[float], covariance: np.ndarray, n_users: int) -> Estimate:
    """Mean over S training seeds of figures measured on the same users.

    per_seed [S]; covariance [S, S] of these figures over users drawn anew, the same users for all
    seeds (see `user_covariance`): the lower level of the hierarchy is a bootstrap. The upper level
    cannot be one: resampling 3 to 5 seeds gives intervals that are too narrow by the factor
    sqrt((S - 1) / S) and by the tails of Student's t. Seeds are a random effect instead (Searle,
    Casella and McCulloch 1992): of the variance of the mean, users make 1'C1 / S^2, seeds what
    var(per_seed) / S exceeds the part of it that is users' noise. So few seeds hardly tell that
    excess: p and interval are means over all that it may be, as var(per_seed) is a multiple of a
    chi-squared of S - 1 degrees of freedom (Weerahandi 1993, generalized intervals). One value put
    in its place (Satterthwaite 1946) makes small p's far too small: with three seeds, below .0001
    up to 60 times too often. The interval is symmetric. With one seed it is about users alone. In
    simulations it holds the truth in 94 to 99 %.
    UserError: of one user nobody can say how much users differ.
    """
    if n_users < 2:
        raise UserError(
            "the runs were tested on one user, of whom no interval can be told: all of them are "
            "kept, but settings are compared over two test users at least; lower "
            "splits.min_history, raise splits.max_users, or give data of more users"
        )
    figures = np.asarray(per_seed, float)
    n_seeds = len(figures)
    users = max(float(covariance.sum()), 0.0) / n_seeds**2  # rounding makes it negative
    spread = noise = 0.0
    if n_seeds > 1:
        spread = float(figures.var(ddof=1)) / n_seeds
        own = np.trace(covariance) - covariance.sum() / n_seeds
        noise = float(own) / (n_seeds - 1) / n_seeds
    mean = float(figures.mean())
    return Estimate(mean, tuple(figures.tolist()), users, spread, noise, n_users)


@cache
def _chi_squared(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of a chi-squared over its whole range and their weights, [NODES] each; 1 without."""
    from scipy import stats

    if not freedom:
        return np.ones(1), np.ones(1)
    low, high = np.log(stats.chi2.ppf([TAIL, 1 - TAIL], freedom))
    draws = np.exp(np.linspace(low, high, NODES))
    weights = stats.chi2.pdf(draws, freedom) * draws
    return draws, weights / weights.sum()


def _root(falling: Callable[[float], float]) -> float:
    """Where a falling function of a size, above zero at 0, meets zero."""
    from scipy import optimize

    high = 1.0
    while falling(high) > 0:
        high *= 4
    return float(optimize.brentq(falling, 0.0, high, xtol=1e-12, rtol=1e-6))


def user_covariance(draws: np.ndarray) -> np.ndarray:
    """Covariance [S, S] of S figures over resamples [S, n_resamples] of the same users."""
    return np.atleast_2d(np.cov(draws))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) p-values: below .05, a comparison stands although so many were made."""
    order = np.argsort(p_values, kind="stable")
    weights = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values, float)[order] * weights)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
