"""One training epoch of SASRec by loss, and its full ranking, one thread, CPU time.

    python benchmarks/oracle_speed.py [--ratings ml-1m/ratings.dat] [--losses full sampled gbce bce]
                                      [--users 6040] [--hidden 50] [--max-length 200]

Without --ratings (user::item::rating::timestamp) the sequences are made up: as many users, items
and interactions as MovieLens-1M has, popularity falling like Zipf's. An epoch is each user's last
`--max-length` positions. Accuracy is not measured here: `fit_oracle` does that on validation.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recalign.config import OracleConfig
from recalign.oracle.batches import training_windows
from recalign.oracle.inference import rank_in_full
from recalign.oracle.sasrec import SASRec
from recalign.oracle.training import Training, popularity_of
from recalign.sequences import Sequences


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def made_up(n_users: int, n_items: int = 3416) -> Sequences:
    """Log-normal lengths of mean 165 as in MovieLens-1M, items by a Zipf law."""
    draws = np.random.default_rng(0)
    lengths = np.clip(draws.lognormal(4.57, 1.0, n_users), 18, 2000).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shares = 1 / np.arange(10, n_items + 10)
    items = draws.choice(np.arange(1, n_items + 1), offsets[-1], p=shares / shares.sum())
    return Sequences(offsets, items, n_items)


def from_ratings(path: Path, n_users: int) -> Sequences:
    """Users and items with five ratings or more, in order of time, ties in the file's order."""
    table = pl.read_csv(path, separator=":", has_header=False)
    table = table.select(pl.nth(0).alias("user"), pl.nth(2).alias("item"), pl.nth(6).alias("time"))
    for column in ("item", "user"):
        table = table.filter(pl.len().over(column) >= 5)
    table = table.with_columns(pl.col("user", "item").rank("dense").cast(pl.Int32))
    table = table.filter(pl.col("user") <= n_users).sort("user", "time", maintain_order=True)
    table = table.select(user_index=pl.col("user") - 1, item_index="item")
    return Sequences.of(table, int(table["item_index"].max()))


def last(sequences: Sequences, n: int) -> Sequences:
    """The last `n` items of every user."""
    users = np.arange(sequences.n_users)
    items, lengths = sequences.until(users, sequences.lengths, n)
    return Sequences(np.concatenate([[0], np.cumsum(lengths)]), items[items > 0], sequences.n_items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=Path)
    parser.add_argument("--losses", nargs="+", default=["full", "sampled", "gbce", "bce"])
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--max-length", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole = from_ratings(given.ratings, given.users) if given.ratings else made_up(given.users)
    sequences = last(whole, given.max_length + 3)
    stops = sequences.lengths - 2
    windows = training_windows(sequences, stops, given.max_length)
    popularity = torch.from_numpy(popularity_of(sequences, stops)).double() + 1
    popularity[0] = 0
    for loss in given.losses:
        config = OracleConfig(hidden=given.hidden, max_length=given.max_length, loss=loss)
        model = SASRec(config, sequences.n_items, None)
        training = Training(model, sequences, windows, popularity)
        seconds = cpu_seconds(lambda: training.run_epoch(1, lambda step, loss: None))  # noqa: B023
        print(f"{loss:8} {seconds:6.1f} CPU s for {windows.lengths.sum():,} targets", flush=True)
    users = np.arange(sequences.n_users)
    targets = sequences.items[sequences.offsets[1:] - 1][:, None]
    seconds = cpu_seconds(lambda: rank_in_full(model, whole, users, whole.lengths - 1, targets))
    print(f"{'ranking':8} {len(users) / seconds:,.0f} users a CPU s over {whole.n_items:,} items")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
