"""What a SASRec loses as time goes on, and what refitting it at the start of each period gains.

    python benchmarks/drift.py PRESET [--raw-folder FOLDER] [--set stage.field=value ...]
                               [--share 0.15] [--periods 3] [--seeds 1] [--threads 1]

The last `share` of all interactions in time is cut into periods of as many interactions each. One
SASRec learns from what comes before the first period, others from what comes before each later one.
In every period each ranks, once, what a user takes there, among all items that the user had not
taken before it began, and reads the same history: all up to the start of the period. Users need an
item before the period and one in it. Differences are paired by user, and means over training seeds;
their 95 % intervals are over users. Settings are those of DPO4Rec's preset.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from oracle import fitted

from recalign.config import DPO4RecConfig, OracleConfig
from recalign.config.presets import load_settings
from recalign.interactions.ingest import Ingested, ingest
from recalign.interactions.sources import read_source, source_files
from recalign.metrics import ndcg
from recalign.oracle.fit import FittedOracle
from recalign.oracle.inference import rank_in_full
from recalign.recommender.signal import t_interval
from recalign.sequences import Sequences, padded_items


@dataclass(frozen=True)
class Period:
    """Some users' items between two moments."""

    began: float
    stops: np.ndarray
    """How many items each user has before the period, int64 [all users]."""
    users: np.ndarray
    targets: np.ndarray
    """What these users take in the period, int64 [U, T], 0 padded."""


def periods_of(data: pl.DataFrame, sequences: Sequences, share: float, n: int) -> list[Period]:
    """The last `share` of the interactions in time as `n` periods of equal size."""
    times = data.sort("user_index", "position")["timestamp"].cast(pl.Float64).to_numpy()
    moments = np.quantile(times, np.linspace(1 - share, 1, n + 1), method="higher")
    owners = np.repeat(np.arange(sequences.n_users), sequences.lengths)
    counts = [np.bincount(owners, times < moment, sequences.n_users) for moment in moments[:-1]]
    stops = [count.astype(np.int64) for count in counts] + [sequences.lengths]
    found = []
    for began, start, stop in zip(moments, stops, stops[1:], strict=False):
        users = np.flatnonzero((start > 0) & (stop > start))
        items = sequences.slices(users, start[users], stop[users])
        found.append(Period(float(began), start, users, padded_items(items)))
    return found


def gains(found: FittedOracle, sequences: Sequences, period: Period) -> np.ndarray:
    """NDCG@10 of every user of the period."""
    stops = period.stops[period.users]
    ranks = rank_in_full(found.model, sequences, period.users, stops, period.targets)
    return ndcg(ranks, (period.targets > 0).sum(1), 10)


def unknown(sequences: Sequences, stops: np.ndarray, period: Period) -> float:
    """Share of the period's items that nobody took before `stops`."""
    never = sequences.before(stops).counts() == 0
    return float(never[period.targets[period.targets > 0]].mean())


def measure(config: OracleConfig, data: Ingested, asked: argparse.Namespace) -> None:
    sequences = Sequences.of(data.interactions, len(data.items))
    periods = periods_of(data.interactions, sequences, asked.share, asked.periods)
    once, anew = [], []  # by seed and period, NDCG@10 of the period's users
    for seed in range(asked.seeds):
        settings = config.model_copy(update={"seed": seed})
        models = []
        for period in periods:
            with tempfile.TemporaryDirectory() as work:
                models.append(fitted(settings, data, sequences, period.stops, Path(work)))
        once.append([gains(models[0], sequences, period) for period in periods])
        anew.append([gains(own, sequences, p) for own, p in zip(models, periods, strict=True)])
    print("| period | from | users | fitted once | refitted | difference | items never seen |")
    print("|---|---|---|---|---|---|---|")
    for place, period in enumerate(periods):
        old, new = (np.mean([run[place] for run in runs], axis=0) for runs in (once, anew))
        mean, low, high = t_interval(new - old)
        cold = [unknown(sequences, one.stops, period) for one in (periods[0], period)]
        print(f"| {place + 1} | {period.began:.0f} | {len(period.users):,} | {old.mean():.4f}"
              f" | {new.mean():.4f} | {mean:+.4f} [{low:+.4f}, {high:+.4f}]"
              f" | {cold[0]:.1%}, refitted {cold[1]:.1%} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--raw-folder", default="")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--share", type=float, default=0.15)
    parser.add_argument("--periods", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    folder = [f"interactions.raw_folder={asked.raw_folder}"] if asked.raw_folder else []
    config = load_settings(DPO4RecConfig, asked.preset, [*asked.settings, *folder])
    files = source_files(config.interactions, Path("artifacts/.cache/raw"))
    data = ingest(read_source(config.interactions, files), config.interactions)
    measure(config.oracle, data, asked)


if __name__ == "__main__":
    main()
