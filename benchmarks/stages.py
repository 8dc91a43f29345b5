"""Which stage should the LLM be? Recall by SASRec, ranking by the LLM, or both, on a RosePO run.

    python benchmarks/stages.py [--root artifacts] [--candidates 20 100] [--k 10]

Every test user of the newest RosePO run gets lists from the history before the test window, and is
judged on all items of that window: NDCG@k and HR@k with 95 % intervals over users, differences to
SASRec paired by user, and CPU seconds per 1,000 users. "SASRec" is recall alone, "LLM" the aligned
LLM over the whole catalogue, "SASRec n, LLM" the LLM's order of SASRec's best n.
"""

import argparse
import time

import numpy as np
import polars as pl

from recalign.artifacts.lookup import open_existing
from recalign.chain import finished_run, title_chain_of_run
from recalign.config import TitleServingConfig
from recalign.evaluation.intervals import mean_interval
from recalign.metrics import hit_rate, ndcg
from recalign.schemas import WINDOWS
from recalign.splits.phases import phase_of
from recalign.title_recommending import open_title_ranker


def ranks_in(lists: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place (from 1) of each target [U, T] in its user's list [U, k]; 0: not in it."""
    hits = (targets[:, :, None] == lists[:, None, :]) & (targets[:, :, None] > 0)
    return np.where(hits.any(2), hits.argmax(2) + 1, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="artifacts")
    parser.add_argument("--candidates", type=int, nargs="*", default=[20, 100])
    parser.add_argument("--k", type=int, default=10)
    asked = parser.parse_args()
    store = open_existing(asked.root)
    report = finished_run(store, method="rosepo")
    chain = title_chain_of_run(store, report)
    world, oracle, policy = (
        store.open(r) for r in (chain.interactions, chain.oracle, chain.policy)
    )
    whole = open_title_ranker(
        world, oracle, policy, asked.root, "cpu", mean=chain.judged["likelihood"] == "mean"
    )
    phase = phase_of(WINDOWS.read(store.open(report.inputs["splits"])), "test")
    targets = phase.targets(whole.sequences)
    stops = whole.sequences.lengths.copy()
    stops[phase.users] = phase.starts  # nothing of the test window is shown
    ranker = type(whole)(
        whole.items, whole.sequences.before(stops), whole.oracle, whole.scorer, whole.prompts,
        whole.rows_at_once,
    )  # fmt: skip
    settings = {f"SASRec {n}, LLM": TitleServingConfig(k=asked.k, candidates=n)
                for n in asked.candidates} | {"LLM": TitleServingConfig(k=asked.k)}  # fmt: skip
    values, lines = {}, []
    for label in ["SASRec", *settings]:
        started = time.process_time()
        if label == "SASRec":
            seen, _ = ranker.sequences.until(phase.users, phase.starts, int(phase.starts.max()))
            lists = ranker.recalled(phase.users, seen, asked.k)
        else:
            lists = ranker.lists(phase.users, settings[label]).items
        seconds = 1000 * (time.process_time() - started) / len(phase.users)
        ranks, n = ranks_in(lists, targets), (targets > 0).sum(1)
        values[label] = ndcg(ranks, n, asked.k)
        mean, low, high = mean_interval(values[label], 2000, 0)
        gap, below, above = mean_interval(values[label] - values["SASRec"], 2000, 0)
        lines.append(
            {
                "stages": label,
                f"NDCG@{asked.k}": f"{mean:.4f} [{low:.4f}, {high:.4f}]",
                "against SASRec": f"{gap:+.4f} [{below:+.4f}, {above:+.4f}]",
                f"HR@{asked.k}": f"{hit_rate(ranks, n, asked.k).mean():.4f}",
                "CPU s per 1,000 users": f"{seconds:.2f}",
            }
        )
    print(f"{report.reference.name}: {len(phase.users):,} users, {whole.items.height:,} items")
    with pl.Config(tbl_width_chars=200, fmt_str_lengths=60, tbl_hide_column_data_types=True):
        print(pl.DataFrame(lines))


if __name__ == "__main__":
    main()
