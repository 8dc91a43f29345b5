"""Ingest of a made-up MovieLens-25M file: CPU seconds and peak memory, against pandas.

    python benchmarks/ingest.py [--rows 25e6] [--folder /tmp/ingest] [--repeats 3]

Parse, drop unknown films, sort by user and time, drop repeats, 5-core to a fixed point, number,
write Parquet (zstd): each variant in a process of its own, on one thread; the results are compared.
Ours also cleans the films' titles and writes a text for each. Repeats are interleaved, the median
counts. pandas is no dependency of recalign: without it only ours runs.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from peak_memory import peak_mib

N_ITEMS = 60_000
K = 5


def generate(folder: Path, rows: int) -> None:
    """As many users, as skewed in length, and as many films of Zipf popularity as it has."""
    draws = np.random.default_rng(0)
    n_users = max(rows // 154, 10)
    lengths = np.clip(draws.lognormal(4.2, 1.2, n_users), 20, 10_000)
    lengths = (lengths * rows * 1.2 / lengths.sum()).astype(np.int64)  # a fifth is drawn twice
    shares = np.cumsum(1 / np.arange(20, N_ITEMS + 20) ** 1.1)
    blocks = np.array_split(np.arange(1, n_users + 1), max(rows // 1_000_000, 1))
    with (folder / "ratings.csv").open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for users in blocks:  # the file is by user and film, as GroupLens' are
            user = np.repeat(users, lengths[users - 1])
            item = np.searchsorted(shares / shares[-1], draws.random(len(user))) * 3 + 1
            user, item = np.divmod(np.unique(user * 4 * N_ITEMS + item), 4 * N_ITEMS)
            start = draws.integers(800_000_000, 1_570_000_000, len(users))[user - users[0]]
            table = {
                "user": user,
                "item": item,
                "rating": draws.integers(1, 11, len(user)) / 2,
                "time": start + draws.integers(0, 4_000_000, len(user)),
            }
            pl.DataFrame(table).write_csv(file, include_header=False)
    ids = np.arange(N_ITEMS + 1) * 3 + 1
    titles = [f"Film {i}{', The' if i % 5 == 0 else ''} (1995)" for i in ids]
    pl.DataFrame({"movieId": ids, "title": titles, "genres": "Drama|War"}).write_csv(
        folder / "movies.csv"
    )


def ours(folder: Path, out: Path) -> None:
    from recalign.config import InteractionsConfig
    from recalign.interactions.ingest import ingest
    from recalign.interactions.sources import read_source, source_files
    from recalign.schemas import INTERACTIONS, write_table

    config = InteractionsConfig(source="ml-25m", raw_folder=str(folder), k_core=K)
    data = ingest(read_source(config, source_files(config, folder)), config)
    write_table(data.interactions, out, INTERACTIONS)


def with_pandas(folder: Path, out: Path, engine: str) -> None:
    import pandas as pd

    kinds = {"userId": "int32", "movieId": "int32", "rating": "float32", "timestamp": "int64"}
    table = pd.read_csv(folder / "ratings.csv", dtype=kinds, engine=engine)
    films = pd.read_csv(folder / "movies.csv", usecols=["movieId"])["movieId"]
    table = table[table["movieId"].isin(films)]
    table = table.sort_values(["userId", "timestamp"], kind="stable")
    table = table.drop_duplicates(["userId", "movieId"])
    while True:
        before = len(table)
        for column in ("userId", "movieId"):
            often = table[column].value_counts()
            table = table[table[column].isin(often.index[often >= K])]
        if len(table) == before:
            break
    made = pd.DataFrame(
        {
            "user_index": pd.factorize(table["userId"], sort=True)[0].astype("int32"),
            "item_index": pd.factorize(table["movieId"], sort=True)[0].astype("int32") + 1,
            "position": table.groupby("userId").cumcount().to_numpy("int32"),
            "timestamp": table["timestamp"].to_numpy(),
            "rating": table["rating"].to_numpy(),
        }
    )
    made.to_parquet(out, compression="zstd", index=False)


def run(variant: str, folder: Path, out: Path) -> None:
    """One variant, in this process; prints CPU seconds and peak MiB."""
    started = time.process_time()  # imports of the variant's own library are counted
    match variant:
        case "generate":
            generate(folder, int(out.name))
        case "recalign":
            ours(folder, out)
        case "pandas (C)":
            with_pandas(folder, out, "c")
        case "pandas (pyarrow)":
            with_pandas(folder, out, "pyarrow")
    print(time.process_time() - started, peak_mib())


def in_child(variant: str, folder: Path, out: Path) -> tuple[float, float]:
    one = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT"), "1")
    command = [sys.executable, __file__, "--variant", variant, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--out", str(out)],
        env=os.environ | one, check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def digest(out: Path) -> list[int]:
    """Row count and a weighted sum of every column: equal where the tables are."""
    table = pl.scan_parquet(out)
    place = pl.int_range(pl.len(), dtype=pl.Int64) % 1009 + 1
    sums = [(pl.col(name).cast(pl.Float64).cast(pl.Int64) * place).sum() for name in
            ("user_index", "item_index", "position", "timestamp")]  # fmt: skip
    sums.append((pl.col("rating") * 2).cast(pl.Int64).mul(place).sum())
    return [int(value) for value in table.select(pl.len().alias("n"), *sums).collect().row(0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=2.5e6)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant:
        run(given.variant, given.folder, given.out)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        in_child("generate", folder, folder / str(int(given.rows)))
        size = (folder / "ratings.csv").stat().st_size / 2**20
        print(f"{given.rows:,.0f} rows asked for, {size:,.0f} MiB", flush=True)
        variants = ["recalign"]
        if importlib.util.find_spec("pandas"):
            variants += ["pandas (C)", "pandas (pyarrow)"]
        found: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
        tables: dict[str, list[int]] = {}
        for _ in range(given.repeats):
            for variant in variants:
                found[variant].append(in_child(variant, folder, folder / "out.parquet"))
                tables[variant] = digest(folder / "out.parquet")
        base = [median(values) for values in zip(*found["recalign"], strict=True)]
        for variant in variants:
            seconds, peak = (median(values) for values in zip(*found[variant], strict=True))
            same = tables[variant] == tables["recalign"]
            print(
                f"{variant:17} {seconds:7.1f} CPU s ({seconds / base[0]:4.2f}x) {peak:7,.0f} MiB "
                f"({peak / base[1]:3.1f}x), {tables[variant][0]:,} rows kept"
                f"{'' if same else ', ANOTHER RESULT'}"
            )


if __name__ == "__main__":
    main()
