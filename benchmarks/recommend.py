"""The best 10 of a large catalogue for many users, without the LLM: users a second, and memory.

    python benchmarks/recommend.py [--users 16384] [--items 100000] [--threads 1] [--shard 8192]
        [--folder FOLDER]

Weights and histories are random, which changes neither time nor memory; texts are vectors at hand.
What is timed is what the stage `serving` does per shard: SASRec's states, what the adapter makes of
the texts, every score, the exact best that were not seen, rows with ids and titles, and the file.
A second run over the same folder shows what a killed run finds again; with --folder the files
stay, and this program itself continues after a kill. Memory does not depend on the number of users
but for their histories (24 bytes an interaction) and their ids.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from peak_memory import peak_mib

from recalign.artifacts.shards import files_of_shards, write_joined
from recalign.config import OracleConfig, RecommenderConfig, ServingConfig
from recalign.oracle.sasrec import SASRec
from recalign.recommender.model import KnowledgeRecommender, Shape
from recalign.recommending import Ranker
from recalign.schemas import ITEMS, SERVING
from recalign.sequences import Sequences

WIDTH, HISTORY, MILLION = 384, 36, 1_000_000


class VectorsAtHand:
    """In the encoder's place: every distinct text has a random vector already."""

    def encode_unique(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(len(texts))
        return rng.standard_normal((len(texts), WIDTH), dtype=np.float32), np.arange(len(texts))


def ranker_of(n_users: int, n_items: int) -> Ranker:
    rng = np.random.default_rng(0)
    taken = rng.integers(1, n_items + 1, n_users * HISTORY)
    sequences = Sequences(np.arange(n_users + 1) * HISTORY, taken, n_items)
    oracle = SASRec(OracleConfig(), n_items, None).eval()
    settings = RecommenderConfig()
    shape = Shape(WIDTH, oracle.config.hidden, settings.hidden, n_items, settings.adapter)
    reader = KnowledgeRecommender(shape, dropout=0.0).eval()
    for weights in (*reader.buffers(), *reader.parameters()):
        torch.nn.init.normal_(weights)
    numbers = range(1, n_items + 1)
    table = pl.DataFrame(
        {
            "item_index": numbers,
            "item_id": [f"i{number}" for number in numbers],
            "title": [f"The Title of Number {number}" for number in numbers],
            "text": [""] * n_items,
            "attributes": [[]] * n_items,
        },
        schema=ITEMS,
    )
    return Ranker(table, sequences, oracle, reader, cast(Any, VectorsAtHand()))


def serve(ranker: Ranker, n_users: int, shard: int, folder: Path) -> tuple[int, list[int]]:
    """Rows in the file, and the users of each shard that was computed."""
    users = pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in range(n_users)],
            "user_index": range(n_users),
            "reasoning": [f"Likes {number}." for number in range(n_users)],
        },
        schema={"user_id": pl.String, "user_index": pl.Int32, "reasoning": pl.String},
    )
    shards, made = list(users.iter_slices(shard)), list[int]()

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for number in missing:
            yield number, ranker.rows(shards[number], ServingConfig())
            made.append(shards[number].height)

    keys = [str(number) for number in range(len(shards))]
    paths = files_of_shards(keys, compute, folder, SERVING)
    return write_joined(paths, folder / SERVING.file, SERVING), made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=16_384)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shard", type=int, default=8192)
    parser.add_argument("--folder", type=Path, help="where files stay (default: nowhere)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    ranker = ranker_of(asked.users, asked.items)
    ranker.rows(
        pl.DataFrame({"user_id": ["u0"], "user_index": [0], "reasoning": ["Likes 0."]}),
        ServingConfig(),
    )  # once, to warm up
    before = peak_mib()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for label in ("first run", "again"):
            cpu, wall = time.process_time(), time.monotonic()
            rows, made = serve(ranker, asked.users, asked.shard, folder)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            print(f"{label}: {len(made)} shards, {rows:,} rows; {cpu:.1f} CPU s, {wall:.1f} s")
            if made:
                rate = sum(made) / cpu
                print(f"{rate:,.0f} users per CPU second: a million in {MILLION / rate / 60:.0f} "
                      "CPU minutes")  # fmt: skip
    print(f"peak {peak_mib():,.0f} MiB, of which {before:,.0f} before the first shard")


if __name__ == "__main__":
    main()
