"""Settings side by side over training seeds: every row, and the comparisons that count."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl

from recalign.evaluation.result_table import Resampled, resample
from recalign.evaluation.seed_intervals import Estimate, estimate, holm, user_covariance
from recalign.metric_columns import Metric
from recalign.sweep_tables import COMPARISONS, LEADERBOARD

Key = tuple[str, Metric]
ESTIMATORS = ("pairwise", "softmax", "constant", "none", "truth", "permuted")


@dataclass(frozen=True)
class SeedRuns:
    """The runs of one setting by training seed, all measured on the same users in one order.

    Each run was resampled with the same drawn users, so that figures of different runs are paired.
    """

    runs: Mapping[int, Resampled]
    bases: Mapping[str, str]
    """The row that each row is compared with."""

    @property
    def n_users(self) -> int:
        """Users of every run."""
        return next(iter(self.runs.values())).n_users

    @property
    def keys(self) -> list[Key]:
        """What every run has."""
        first, *others = [run.places for run in self.runs.values()]
        return [key for key in first if all(key in other for other in others)]

    def without(self, seed: int) -> "SeedRuns":
        """The same without one seed."""
        return replace(self, runs={n: run for n, run in self.runs.items() if n != seed})

    def mean(self, key: Key) -> Estimate:
        """A row in a metric."""
        return self._estimate(
            [run.means[run.places[key]] for run in self.runs.values()],
            [run.draws[:, run.places[key]] for run in self.runs.values()],
        )

    def difference(self, key: Key, other: "SeedRuns", base: Key) -> Estimate:
        """A row minus another, of this setting or another, over the seeds that both have."""
        pairs = [(run, other.runs[n]) for n, run in self.runs.items() if n in other.runs]
        return self._estimate(
            [own.means[own.places[key]] - its.means[its.places[base]] for own, its in pairs],
            [own.draws[:, own.places[key]] - its.draws[:, its.places[base]] for own, its in pairs],
        )

    def compares(self, key: Key, other: "SeedRuns", base: Key) -> bool:
        """Whether both were measured with a seed in common."""
        return (
            bool(self.runs.keys() & other.runs.keys()) and key in self.keys and base in other.keys
        )

    def _estimate(self, figures: list[float], draws: list[np.ndarray]) -> Estimate:
        return estimate(figures, user_covariance(np.stack(draws)), self.n_users)


def seed_runs(
    per_user: Mapping[int, pl.DataFrame], results: pl.DataFrame, n_resamples: int, seed: int
) -> SeedRuns:
    """The runs of one setting from their ROWS_PER_USER by training seed, and RESULTS of one.

    ValueError: the runs were measured on different users.
    """
    bases = dict(results.drop_nulls("base").select("row", "base").unique().iter_rows())
    users = [set(table["user_index"].unique()) for table in per_user.values()]
    if any(one != users[0] for one in users):
        raise ValueError("runs of one setting were measured on different users")
    return SeedRuns({n: resample(table, n_resamples, seed) for n, table in per_user.items()}, bases)


class Comparison(NamedTuple):
    """One comparison that the page makes a claim about."""

    question: str
    setting: str
    row: str
    base_setting: str
    base: str


def main_row(results: pl.DataFrame) -> str:
    """The row of RESULTS that a run is about: the aligned policy, read and smoothed as usual.

    ValueError: no policy was aligned.
    """
    lines = results.filter(policy="aligned").unique("row", maintain_order=True).to_dicts()
    if not lines:
        raise ValueError("no policy was aligned in this run")

    def rank(line: dict[str, str]) -> tuple[bool, bool, bool, int]:
        smoothed = ESTIMATORS.index(line["estimator"]) if line["estimator"] else 0
        sampled, refitted = line["decoding"] == "sampled", line["recommender"] == "refitted"
        return sampled, refitted, line["strategy"] == "random", smoothed

    return str(min(lines, key=rank)["row"])


def leaderboard_table(
    settings: Mapping[str, SeedRuns], headlines: Mapping[str, str]
) -> pl.DataFrame:
    """LEADERBOARD of all settings; `headlines` names the row that each is about."""
    lines: list[tuple[object, ...]] = []
    for label, runs in settings.items():
        for key in runs.keys:
            row, metric = key
            own, base = runs.mean(key), runs.bases.get(row)
            compared: tuple[object, ...] = (None,) * 4
            if base is not None and (base, metric) in runs.keys:
                found = runs.difference(key, runs, (base, metric))
                compared = (base, found.mean, *found.interval)
            counts = len(runs.runs), runs.n_users
            about = label, row, row == headlines[label]
            told = own.mean, *own.interval, list(own.per_seed)
            lines.append((*about, *metric, *told, *compared, *counts))
    return pl.DataFrame(lines, schema=LEADERBOARD, orient="row")


def comparison_table(
    asked: Sequence[Comparison], settings: Mapping[str, SeedRuns], metric: Metric
) -> pl.DataFrame:
    """COMPARISONS in one metric; Holm's p-values are over all of them.

    Left out is what has no seed or no value in common, as where the runs of a setting failed.
    """
    asked = [
        one
        for one in asked
        if settings[one.setting].compares(
            (one.row, metric), settings[one.base_setting], (one.base, metric)
        )
    ]
    found = [
        settings[one.setting].difference(
            (one.row, metric), settings[one.base_setting], (one.base, metric)
        )
        for one in asked
    ]
    adjusted = holm([one.p for one in found])
    lines = []
    for one, own, p in zip(asked, found, adjusted, strict=True):
        counts = len(own.per_seed), settings[one.setting].n_users
        told = own.mean, *own.interval, list(own.per_seed), own.p, p, own.detectable
        lines.append((*one, *metric, *told, *counts))
    return pl.DataFrame(lines, schema=COMPARISONS, orient="row")


def chosen_setting(cells: pl.DataFrame, validated_by: Collection[Metric]) -> tuple[str, int] | None:
    """The setting with the best validation on one seed of CELLS, and that seed.

    It is the first of the seeds on which the most settings have a validation: runs fail. None where
    nothing can be chosen: no two settings have one on the same seed, or they are `validated_by`
    several metrics.
    """
    scored = cells.drop_nulls("validation")
    shared = scored.group_by("seed").agg(n=pl.col("setting").n_unique()).filter(pl.col("n") > 1)
    if len(set(validated_by)) > 1 or shared.is_empty():
        return None
    seed = shared.sort(["n", "seed"], descending=[True, False])["seed"][0]
    best = scored.filter(seed=seed).sort("validation", descending=True, maintain_order=True)
    return best["setting"][0], seed


def confirmation(
    asked: Sequence[Comparison],
    settings: Mapping[str, SeedRuns],
    chosen: tuple[str, int] | None,
    metric: Metric,
) -> pl.DataFrame:
    """COMPARISONS of the setting to trust: the chosen one, over the seeds it was not chosen on.

    chosen: by `chosen_setting`. Where nothing was, of the only setting, over all its seeds. No line
    without such a seed.
    """
    if chosen is None:
        return comparison_table(asked if len(settings) == 1 else [], settings, metric)
    label, seed = chosen
    others = {name: runs.without(seed) for name, runs in settings.items()}
    return comparison_table([one for one in asked if one.setting == label], others, metric)


def comparisons(
    claims: Mapping[str, Sequence[tuple[str, str, str]]], headlines: Mapping[str, str]
) -> Iterator[Comparison]:
    """What is compared: each setting's claims (question, row, base), and it with the first one."""
    first = next(iter(headlines))
    for label, own in claims.items():
        for question, row, base in own:
            yield Comparison(question, label, row, label, base)
    for label, row in headlines.items():
        if label != first:
            yield Comparison(f"Is it better than {first}?", label, row, first, headlines[first])
