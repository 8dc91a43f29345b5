"""Cost against size: CPU seconds and peak memory at 1, 4 and 16 times the rows or users.

    python benchmarks/scaling.py [--only candidates ...] [--factor 1.0]

Every measurement is a process of its own, on one thread. Peaks are of the whole process, its
libraries and its data included; how much of a peak the data themselves are is shown apart. The
last part is a catalogue of a million items: an epoch with sampled softmax, and full ranking.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from peak_memory import peak_mib

if TYPE_CHECKING:  # torch is no part of ingest's peak
    from recalign.oracle.training import Training
    from recalign.sequences import Sequences

SIZES = (1, 4, 16)
BASE = {"ingest": 500_000, "candidates": 62_500, "epoch": 500, "ranking": 1_000, "rewards": 400}
UNITS = dict.fromkeys(BASE, "users") | {"ingest": "rows", "rewards": "users x 10 texts"}
CATALOGUE, CATALOGUE_USERS, RANKED = 1_000_000, 3_000, 500


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def ingest(rows: int) -> tuple[float, float]:
    """CPU seconds, and MiB of the file read."""
    from ingest import in_child, ours  # neighbours in this folder

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_child("generate", folder, folder / str(rows))
        size = (folder / "ratings.csv").stat().st_size / 2**20
        return timed(lambda: ours(folder, folder / "out.parquet")), size


def candidates(n_users: int, n_items: int = 3416, length: int = 50) -> tuple[float, float]:
    """CPU seconds for two lists of 99 per user, and MiB of the sequences."""
    import polars as pl

    from recalign.config import SplitsConfig
    from recalign.schemas import WINDOWS
    from recalign.sequences import Sequences
    from recalign.splits.candidates import draw_candidates

    taken = np.random.default_rng(0).zipf(1.1, 2 * n_users * length)
    taken = np.resize(taken[taken <= n_items], n_users * length).astype(np.int64)
    sequences = Sequences(np.arange(n_users + 1) * length, taken, n_items)
    starts = [name for name in WINDOWS if name.endswith("start")]
    columns = dict.fromkeys(starts, length - 4) | {"end": length, "prompted": True}
    windows = pl.DataFrame({"user_index": np.arange(n_users)}).with_columns(**columns).cast(WINDOWS)
    return timed(lambda: draw_candidates(sequences, windows, SplitsConfig())), taken.nbytes / 2**20


def training(n_users: int, n_items: int) -> "tuple[Training, Sequences]":
    """A training of SASRec with sampled softmax on made-up sequences, and those."""
    import torch
    from oracle_speed import made_up

    from recalign.config import OracleConfig
    from recalign.oracle.sasrec import SASRec
    from recalign.oracle.training import Training

    torch.set_num_threads(1)
    sequences = made_up(n_users, n_items)
    config = OracleConfig(loss="sampled", item_text=False)
    seen = sequences.before(sequences.lengths - 1)
    return Training(SASRec(config, n_items, None), seen), sequences


def epoch(n_users: int, n_items: int = 3416) -> tuple[float, float]:
    """CPU seconds, and MiB of the sequences."""
    run, sequences = training(n_users, n_items)
    return timed(lambda: run.run_epoch(1, lambda step, loss: None)), sequences.items.nbytes / 2**20


def ranking(n_users: int, n_items: int = 3416) -> tuple[float, float]:
    """CPU seconds to rank every user's last item among all, and MiB of the sequences."""
    from recalign.oracle.inference import rank_in_full

    run, sequences = training(n_users, n_items)
    users, last = np.arange(n_users), sequences.lengths - 1
    targets = sequences.items[sequences.offsets[1:] - 1][:, None]
    seconds = timed(lambda: rank_in_full(run.model, sequences, users, last, targets))
    return seconds, sequences.items.nbytes / 2**20


def rewards(n_users: int) -> tuple[float, float]:
    """CPU seconds, states included, and MiB of the text vectors."""
    import torch
    from rewards import Problem

    torch.set_num_threads(1)
    problem = Problem(n_users, 1000)
    return timed(lambda: problem.rewards(problem.states())), problem.texts.nbytes / 2**20


def measure(what: str, size: int) -> tuple[float, float]:
    match what:
        case "ingest":
            return ingest(size)
        case "candidates":
            return candidates(size)
        case "epoch":
            return epoch(size)
        case "ranking":
            return ranking(size)
        case "rewards":
            return rewards(size)
        case "catalogue epoch":
            return epoch(size, CATALOGUE)
        case "catalogue ranking":
            return ranking(size, CATALOGUE)
    raise ValueError(what)


def in_child(what: str, size: int) -> tuple[float, float, float]:
    """CPU seconds, MiB of data and peak MiB, of one measurement in a process of its own."""
    one = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, __file__, "--one", what, "--size", str(size)],
        env=os.environ | one, check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds, data, peak = map(float, done.stdout.split())
    return seconds, data, peak


def table(what: str, factor: float) -> None:
    """The lines of one kind of work."""
    first = 0.0
    for size in SIZES:
        n = max(1, int(BASE[what] * factor)) * size
        seconds, data, peak = in_child(what, n)
        first = first or seconds
        print(
            f"{what:10} {size:3}x {n:10,} {UNITS[what]:17} {seconds:7.2f} CPU s "
            f"({seconds / first:5.1f}x) {peak:7,.0f} MiB at most, {data:6,.0f} of them data",
            flush=True,
        )


def catalogue(factor: float) -> None:
    n, ranked = int(CATALOGUE_USERS * factor), int(RANKED * factor)
    seconds, _, peak = in_child("catalogue epoch", n)
    print(f"{CATALOGUE:,} items, epoch of {n:,} users: {seconds:.1f} CPU s, {peak:,.0f} MiB")
    seconds, _, peak = in_child("catalogue ranking", ranked)
    print(
        f"{CATALOGUE:,} items, full ranking of {ranked:,} users: "
        f"{seconds / ranked * 1000:.1f} CPU ms a user, {peak:,.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = [*BASE, "catalogue"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--factor", type=float, default=1.0, help="of the sizes below")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        seconds, data = measure(given.one, given.size)
        print(seconds, data, peak_mib())
        return
    for part in given.only:
        if part == "catalogue":
            catalogue(given.factor)
        else:
            table(part, given.factor)


if __name__ == "__main__":
    main()
