"""Simulated nights of a finished DPO4Rec run: what a refresh costs where few users were active.

    python benchmarks/nights.py [--root artifacts] [--users 15000] [--active 0.05] [--nights 3]

The run's users and new ones, who have the items of a user of the run in another order, are
refreshed together the first night. Before each of the others a share of them, drawn anew, takes two
items: the first of their list, so that the drift watch has something to find, and one that is
drawn. In a last night one user was active, which shows what a night costs before any text.

Each night is the command `recalign recommend --refresh`, as cron calls it, on one thread. The table
has its CPU seconds and those of the two stages that do the work: the LLM's texts
(current_reasonings), and encoding and ranking (serving). The root is copied first, and the copy is
thrown away.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.kept_rows import BY_LLM
from recalign.artifacts.lookup import open_existing
from recalign.artifacts.refreshes import REFRESHES
from recalign.chain import chain_of_run, finished_run
from recalign.report.terminal import print_table
from recalign.schemas import INTERACTIONS, ITEMS

HEADER = ["night", "active", "texts written", "texts, CPU s", "encode and rank, CPU s",
          "whole command, CPU s", "NDCG@10 of the one before"]  # fmt: skip
Event = tuple[str, str, int]
"""user_id, item_id, timestamp."""


@dataclass
class Nights:
    """A root, what users take, and what each refresh cost."""

    root: Path
    report: str
    items: list[str]
    now: int
    news: list[Event] = field(default_factory=list)

    @property
    def recs(self) -> Path:
        """The table that is handed out."""
        return self.root.parent / "recs.parquet"

    def active(self, night: int, share: float) -> None:
        """Let a share of the users, one at least, take two items each."""
        draws = np.random.default_rng(night)
        first = pl.read_parquet(self.recs).filter(rank=1).select("user_id", "item_id")
        self.now += 2
        for user, item in first.sample(max(1, round(share * first.height)), seed=night).rows():
            drawn = self.items[draws.integers(len(self.items))]
            self.news += [(user, item, self.now - 1), (user, drawn, self.now)]

    def refresh(self) -> list[str]:
        """One night; what it wrote, and its CPU seconds."""
        newer = self.root.parent / "newer.csv"
        pl.DataFrame(self.news, ["user_id", "item_id", "timestamp"], orient="row").write_csv(newer)
        command = [str(Path(sys.executable).parent / "recalign"), "recommend", self.report,
                   "--root", str(self.root), "--refresh", "nights", "--interactions", str(newer),
                   "--output", str(self.recs), "--set", "runtime.threads=1"]  # fmt: skip
        before = os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        seconds = after.children_user + after.children_system
        seconds -= before.children_user + before.children_system
        store = open_existing(str(self.root))
        [*_, last] = REFRESHES.read(store, "nights").refreshes
        served = store.open(last.serving).manifest
        texts = store.open(served.inputs["reasonings"]).manifest
        costs = [texts.cpu_seconds, served.cpu_seconds, seconds]
        drift = f"{last.drift.ndcg:.3f} on {last.drift.users}" if last.drift else ""
        return [str(last.texts_written), *(f"{cost:.1f}" for cost in costs), drift]


def crowd(world: Artifact, n: int) -> Iterator[Event]:
    """What n new users took: each the items of a user of the run, in another order."""
    taken = INTERACTIONS.read(world).join(ITEMS.read(world), on="item_index")
    own = taken.group_by("user_index", maintain_order=True).agg("item_id", "timestamp")
    random = np.random.default_rng(0)
    for number, donor in enumerate(random.integers(own.height, size=n).tolist()):
        items = random.permutation(own["item_id"][donor].to_list()).tolist()
        times = sorted(own["timestamp"][donor].to_list())
        yield from ((f"new {number}", *one) for one in zip(items, times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="artifacts")
    parser.add_argument("--users", type=int, default=15_000, help="at least those of the run")
    parser.add_argument("--active", type=float, default=0.05)
    parser.add_argument("--nights", type=int, default=3)
    asked = parser.parse_args()
    store = open_existing(asked.root)
    report = finished_run(store, method="dpo4rec")
    world = store.open(chain_of_run(store, report).interactions)
    table = INTERACTIONS.read(world)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        shutil.copytree(asked.root, root)
        for place in (f".cache/{BY_LLM}", ".refreshes", "current_reasonings", "serving"):
            shutil.rmtree(root / place, ignore_errors=True)
        items, now = ITEMS.read(world)["item_id"].to_list(), max(table["timestamp"].to_list())
        nights = Nights(root, report.reference.name, items, now)
        nights.news += crowd(world, asked.users - table["user_index"].n_unique())
        rows = [["1", "all", *nights.refresh()]]
        shares = [asked.active] * (asked.nights - 1) + [0.0]
        for night, share in enumerate(shares, start=2):
            nights.active(night, share)
            rows.append([str(night), f"{share:.0%}" if share else "one user", *nights.refresh()])
        print_table(HEADER, rows)


if __name__ == "__main__":
    main()
