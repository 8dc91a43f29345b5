"""Users per CPU second of NDCG, HR, MAP and MRR at 10: ours, ranx and torchmetrics, one thread.

    NUMBA_NUM_THREADS=1 python benchmarks/metrics.py [--users 5000] [--repeats 3]

Each starts from the users' lists of 100 items and 1 to 5 targets each in the form it takes: ours
from item indices, ranx from its Qrels and Run (building them is shown apart; compilation is not
counted), torchmetrics from flat tensors. The values are compared; where conventions differ
(average precision) that is said. What is not installed is skipped.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch

from recalign.metrics import hit_rate, mean_average_precision, mrr, ndcg

K = 10
LENGTH = 100
N_ITEMS = 3416
Lists = tuple[np.ndarray, np.ndarray]


def made_up(n_users: int) -> Lists:
    """Lists [B, LENGTH] without repeats, and 1 to 5 targets [B, 5], about half of them in it."""
    draws = np.random.default_rng(0)
    items = np.argsort(draws.random((n_users, N_ITEMS), dtype=np.float32), axis=1) + 1
    places = draws.integers(0, 2 * LENGTH, (n_users, 5))
    targets = np.take_along_axis(items, places, axis=1)
    targets[np.arange(5) >= draws.integers(1, 6, n_users)[:, None]] = 0
    for column in range(1, 5):  # a repeated target is one
        repeated = (targets[:, :column] == targets[:, column : column + 1]).any(1)
        targets[repeated, column] = 0
    return items[:, :LENGTH].copy(), targets


def list_ranks(recommended: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rank of each target [B, T] in its user's list [B, k], best first; 0 where it is not in it."""
    ranks = np.zeros(targets.shape, dtype=np.int64)
    for place in range(recommended.shape[1], 0, -1):
        ranks[(recommended[:, place - 1, None] == targets) & (targets > 0)] = place
    return ranks


def ours(lists: Lists) -> dict[str, np.ndarray]:
    recommended, targets = lists
    ranks, n = list_ranks(recommended[:, :K], targets), (targets > 0).sum(1)
    return {
        "NDCG": ndcg(ranks, n, K),
        "HR": hit_rate(ranks, n, K),
        "MAP": mean_average_precision(ranks, n, K),
        "MRR": mrr(ranks, n, K),
    }


def fastest(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def ranx_line(lists: Lists, repeats: int, expected: dict[str, np.ndarray]) -> str:
    from ranx import Qrels, Run, evaluate

    recommended, targets = lists
    scores = 1.0 / np.arange(1, LENGTH + 1)
    started = time.process_time()
    users = [f"u{user}" for user in range(len(recommended))]
    qrels = Qrels(
        {u: {str(i): 1 for i in row if i} for u, row in zip(users, targets.tolist(), strict=True)}
    )
    run = Run(
        {
            u: dict(zip(map(str, row), scores.tolist(), strict=True))
            for u, row in zip(users, recommended.tolist(), strict=True)
        }
    )
    built = time.process_time() - started
    names = [f"ndcg@{K}", f"hit_rate@{K}", f"map@{K}", f"mrr@{K}"]
    found = evaluate(qrels, run, names)  # compiles
    n = (targets > 0).sum(1)
    scaled = expected["MAP"] * np.minimum(n, K) / n
    means = [expected["NDCG"].mean(), expected["HR"].mean(), scaled.mean(), expected["MRR"].mean()]
    difference = max(abs(found[name] - mean) for name, mean in zip(names, means, strict=True))
    seconds = fastest(lambda: evaluate(qrels, run, names), repeats)
    return (
        f"ranx          {len(users) / seconds:12,.0f} users a CPU s (building Qrels and Run, once, "
        f"with compilation: {len(users) / built:,.0f}); means differ by {difference:.0e}, "
        "MAP scaled to its AP / n"
    )


def torchmetrics_line(lists: Lists, repeats: int, expected: dict[str, np.ndarray]) -> str:
    from torchmetrics.retrieval import (
        RetrievalHitRate,
        RetrievalMAP,
        RetrievalMRR,
        RetrievalNormalizedDCG,
    )

    recommended, targets = lists
    # It only counts targets that are in the list: the others are put behind it.
    missing = np.where((list_ranks(recommended, targets) == 0) & (targets > 0), targets, 0)
    items = np.concatenate([recommended, missing], axis=1)
    relevant = (items[:, :, None] == targets[:, None, :]).any(2) & (items > 0)
    scores = np.broadcast_to(1.0 / np.arange(1, items.shape[1] + 1), items.shape)
    users = np.broadcast_to(np.arange(len(items))[:, None], items.shape)
    flat = [torch.from_numpy(a[items > 0].copy()) for a in (scores, relevant, users)]
    kinds = (RetrievalNormalizedDCG, RetrievalHitRate, RetrievalMAP, RetrievalMRR)

    def run() -> list[float]:
        values = []
        for kind in kinds:
            metric = kind(top_k=K)
            metric.update(flat[0], flat[1], indexes=flat[2])
            values.append(float(metric.compute()))
        return values

    found = run()
    pairs = [(found[0], "NDCG"), (found[1], "HR"), (found[3], "MRR")]
    difference = max(abs(value - expected[name].mean()) for value, name in pairs)
    seconds = fastest(run, repeats)
    return (
        f"torchmetrics  {len(items) / seconds:12,.0f} users a CPU s; means of NDCG, HR and MRR "
        f"differ by {difference:.0e}; its MAP is AP / hits: {found[2]:.4f} "
        f"(ours {expected['MAP'].mean():.4f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lists = made_up(given.users)
    expected = ours(lists)
    seconds = fastest(lambda: ours(lists), given.repeats)
    print(f"recalign      {given.users / seconds:12,.0f} users a CPU s", flush=True)
    for name, line in (("ranx", ranx_line), ("torchmetrics", torchmetrics_line)):
        if importlib.util.find_spec(name):
            print(line(lists, given.repeats, expected), flush=True)
        else:
            print(f"{name:13} not installed")


if __name__ == "__main__":
    main()
