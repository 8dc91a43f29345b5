"""CPU time of SASRec by loss, and of its full ranking, beside other libraries' on the same data.

    python benchmarks/oracle_speed.py [--ratings ml-1m/ratings.dat] [--losses full sampled bce]
                                      [--users 6040] [--hidden 50] [--max-length 200] [--batch 128]
                                      [--peers rectools=VENV/bin/python replay=VENV/bin/python]
                                      [--rounds 1] [--device cuda]

Without --ratings (user::item::rating::timestamp) the sequences are made up: as many users, items
and interactions as MovieLens-1M has, popularity falling like Zipf's. An epoch is each user's last
`--max-length` positions but two; the last one is ranked. Each peer (`oracle_peers.py`) has its own
interpreter, which need not have recalign. Every measurement is a process of one thread; a round
takes them in turn, and the tables give medians over rounds. Accuracy is not measured here:
`benchmarks/oracle.py` does that. On a GPU, ours is timed alone, in seconds. Needs Linux (peak
memory).
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
import torch
from device import clock, forget_peak, peak_gib, row
from oracle_peers import LOSSES_OF
from stopwatch import Found, users_per_second

from recalign.config import OracleConfig
from recalign.oracle.inference import rank_in_full
from recalign.oracle.sasrec import SASRec
from recalign.oracle.training import Training
from recalign.sequences import Sequences

OURS = "recalign"
TIMED = {"rectools": 10, "replay": 10, "recbole": 1}  # batches of a peer's epoch
FIRST_USERS = 256  # ranked before the stopwatch starts, off a processor
TITLES = {
    "epoch_seconds": "CPU seconds an epoch",
    "users_per_second": "Users ranked a CPU second",
    "peak_mib": "Peak memory of training, MiB",
}


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


def measured(path: Path, loss: str, hidden: int, max_length: int, batch: int, device: str) -> Found:
    """A whole epoch of ours and its ranking, in this process."""
    torch.set_num_threads(1)
    stored = np.load(path)
    whole = Sequences(stored["offsets"], stored["items"], int(stored["n_items"]))
    sequences = last(whole, max_length + 3)
    config = OracleConfig(hidden=hidden, max_length=max_length, loss=loss, batch_users=batch)
    model = SASRec(config, sequences.n_items, None).to(device)
    training = Training(model, sequences.before(sequences.lengths - 2))
    now = clock(device, threads=1)
    users = np.arange(whole.n_users)
    targets = whole.items[whole.offsets[1:] - 1][:, None]
    ranked = lambda at: rank_in_full(  # noqa: E731
        model, whole, users[at], whole.lengths[at] - 1, targets[at]
    )
    if device != "cpu":  # a GPU's first calls choose and load what they run
        training.run_epoch(1, lambda step, loss: None)
        ranked(users[:FIRST_USERS])
        forget_peak(device)
    started = now()
    training.run_epoch(1, lambda step, loss: None)
    found = {"epoch_seconds": now() - started, "peak_mib": peak_gib(device) * 1024}
    found["parameters"] = sum(p.numel() for p in model.parameters())
    return found | users_per_second(len(users), lambda: ranked(users), now)


def ours(path: Path, loss: str, given: argparse.Namespace) -> Found:
    """`measured` in a process of its own, as its peak memory is the process's."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        sizes = (given.hidden, given.max_length, given.batch, given.device)
        return pool.submit(measured, path, loss, *sizes).result()


def peers(path: Path, peer: str, python: str, loss: str, given: argparse.Namespace) -> Found:
    """What `oracle_peers.py` prints under the peer's interpreter; its complaint ends the run."""
    script = Path(__file__).with_name("oracle_peers.py")
    sizes = {"batch": given.batch, "hidden": given.hidden, "max-length": given.max_length}
    options = [f"--{name}={value}" for name, value in (sizes | {"batches": TIMED[peer]}).items()]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, str(script), peer, str(path), loss, *options],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        sys.exit(f"{peer}, loss {loss}:\n{done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def rounds(path: Path, given: argparse.Namespace) -> Iterator[tuple[str, str, Found]]:
    """(loss, library, what it showed), the libraries in turn for each loss."""
    pythons = dict(peer.split("=", 1) for peer in given.peers)
    for _ in range(given.rounds):
        for loss in given.losses:
            yield loss, OURS, ours(path, loss, given)
            for peer, python in pythons.items():
                if loss in LOSSES_OF[peer]:
                    yield loss, peer, peers(path, peer, python, loss, given)


def table(found: dict[tuple[str, str], list[Found]], measure: str, losses: list[str]) -> None:
    """One row a loss, one column a library, with how many times better ours is."""
    libraries = list(dict.fromkeys(library for _, library in found))
    print(f"\n{TITLES[measure]}\n\n| loss | {' | '.join(libraries)} |")
    print("|---|" + "---|" * len(libraries))
    for loss in losses:
        cells = []
        own = median(one[measure] for one in found[loss, OURS])
        for library in libraries:
            if (loss, library) not in found:
                cells.append("-")
                continue
            value = median(one[measure] for one in found[loss, library])
            ratio = own / value if measure == "users_per_second" else value / own
            shown = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
            cells.append(shown if library == OURS else f"{shown} ({ratio:.1f}x)")
        print(f"| {loss} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=Path)
    parser.add_argument("--losses", nargs="+", default=["full", "sampled", "gbce", "bce"])
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--max-length", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--peers", nargs="+", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    whole = from_ratings(given.ratings, given.users) if given.ratings else made_up(given.users)
    found: dict[tuple[str, str], list[Found]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sequences.npz"
        np.savez(path, offsets=whole.offsets, items=whole.items, n_items=whole.n_items)
        for loss, library, one in rounds(path, given):
            found.setdefault((loss, library), []).append(one)
            parts = {name: round(value, 1) for name, value in one.items()}
            print(f"{loss:8} {library:9} {json.dumps(parts)}", flush=True)
    for measure in TITLES:
        table(found, measure, given.losses)
    for loss in given.losses:
        epoch, ranked, peak = (median(one[name] for one in found[loss, OURS]) for name in TITLES)
        row(f"SASRec, loss {loss}", f"{epoch:,.1f} s an epoch", f"{ranked:,.0f} users/s ranked",
            peak / 1024)  # fmt: skip


if __name__ == "__main__":
    main()
