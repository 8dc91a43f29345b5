"""Accuracy of the SASRec oracle, leave-one-out, full ranking, with 95 % intervals.

    python benchmarks/oracle.py PRESET [--raw-folder FOLDER] [--set stage.field=value ...]
                                [--work FOLDER] [--threads 1] [--valid]

Settings are those of DPO4Rec's preset. SASRec learns from every item but a user's last two; the
last but one stops the training and calibrates the scores; the last is ranked once, after both,
among all items that the user has not taken (--valid: not at all, to try settings). Equal timestamps
keep the order of the file. `--work` keeps a checkpoint per epoch: an interrupted run goes on there.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from recalign.config import DPO4RecConfig, OracleConfig
from recalign.config.presets import load_settings
from recalign.evaluation.intervals import mean_interval
from recalign.interactions.ingest import Ingested, ingest
from recalign.interactions.sources import read_source, source_files
from recalign.metrics import metric_table
from recalign.oracle.fit import FittedOracle, OracleData, fit_oracle
from recalign.oracle.inference import rank_in_full
from recalign.recommender.encoder import SentenceEncoder
from recalign.sequences import Sequences

CUTOFFS = [1, 5, 10, 20]
SHOWN = ("NDCG@10", "HR@10", "NDCG@5", "HR@5", "NDCG@20", "HR@20", "MRR@10")


def fitted(
    config: OracleConfig, data: Ingested, sequences: Sequences, stops: np.ndarray, work: Path
) -> FittedOracle:
    """SASRec on every user's items before position stops [U], validated on the last of them."""
    text = None
    if config.item_text:
        encoder = SentenceEncoder(config.encoder, work / "sentences", "cpu")
        text = encoder.encode_items(data.items["text"].to_list())
    seen = sequences.before(np.maximum(stops - 1, 0))
    users = np.flatnonzero(stops > 1)
    targets = sequences.items[sequences.offsets[users] + stops[users] - 1]

    def told(done: int, total: int, note: str = "") -> None:
        if note.startswith("epoch"):
            print(f"  {done / total:4.0%} {time.process_time():6.0f} CPU s, {note}", flush=True)

    return fit_oracle(config, OracleData(seen, users, targets[:, None], text), work, told)


def print_test(model: torch.nn.Module, sequences: Sequences) -> None:
    """Means over all users of the metrics of their last item's rank."""
    users, last = np.arange(sequences.n_users), sequences.lengths - 1
    targets = sequences.items[sequences.offsets[1:] - 1][:, None]
    ranks = rank_in_full(model, sequences, users, last, targets)
    table = metric_table(ranks, np.ones(len(users), dtype=np.int64), CUTOFFS)
    values = {metric.name: column for metric, column in table.items()}
    for name in SHOWN:
        mean, low, high = mean_interval(values[name], 2000, 0)
        print(f"  {name:8} {mean:.4f} [{low:.4f}, {high:.4f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("--raw-folder", default="")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--valid", action="store_true", help="do not read the test items")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings = [*given.settings, *([f"interactions.raw_folder={given.raw_folder}"]
                                   if given.raw_folder else [])]  # fmt: skip
    config = load_settings(DPO4RecConfig, given.preset, settings)
    files = source_files(config.interactions, Path("artifacts/.cache/raw"))
    data = ingest(read_source(config.interactions, files), config.interactions)
    sequences = Sequences.of(data.interactions, len(data.items))
    print(f"{given.preset}: {sequences.n_users:,} users, {sequences.n_items:,} items,"
          f" {len(sequences.items):,} interactions")  # fmt: skip
    print(config.oracle.model_dump_json())
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        found = fitted(config.oracle, data, sequences, sequences.lengths - 1, work)
    best = found.curve["valid_ndcg_at_10"]
    print(f"epoch {best.arg_max() + 1} of {len(best)}, validation NDCG@10 {best.max():.4f},"
          f" {found.curve['seconds'].sum():.0f} s")  # fmt: skip
    print("calibration:", {name: round(value, 4) for name, value in found.calibration.items()},
          f"temperature {found.temperature:.3f}")  # fmt: skip
    if not given.valid:
        print_test(found.model, sequences)


if __name__ == "__main__":
    main()
