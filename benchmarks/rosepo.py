"""Run RosePO's grid with several seeds and pool the test results.

    python benchmarks/rosepo.py --seeds 3 [--preset embedded] [--set stage.field=value ...]
                                [--picture docs/images/rosepo-tradeoff.svg]

Every seed changes the world (synthetic), the drawn lists and pairs, all initial weights and the
order of training. Seeds on one real data set share their users: their values are averaged per user
before the intervals are drawn, so that the intervals are about users. Artifacts are kept, so a
second call only prints.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from recalign.config import ComparedRow
from recalign.evaluation.next_items.claims import contrast_table, rosepo_rows
from recalign.evaluation.result_table import resample
from recalign.metric_columns import CATALOGUE, NDCG_AT_10, Metric
from recalign.report.tradeoff import tradeoff

SEEDED = ("interactions.synthetic", "splits", "oracle", "sft", "rejections", "smoothing",
          "alignment", "recommendations")  # fmt: skip
LIFT = Metric(CATALOGUE, "popularity lift")
METRICS = (
    Metric("uniform", "HR", 1),
    Metric("popularity", "HR", 1),
    NDCG_AT_10,
    LIFT,
    Metric("uniform", "semantic hallucination"),
)


def compared(root: Path, preset: str, settings: list[str], seed: int) -> Path:
    """The folder of the seed's comparison, computed if need be."""
    options = [part for text in [*settings, *(f"{name}.seed={seed}" for name in SEEDED)]
               for part in ("--set", text)]  # fmt: skip
    recalign = str(Path(sys.executable).parent / "recalign")
    command = [recalign, "run", "rosepo-grid", "--root", str(root), "--preset", preset, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("report: ")).parent


def averaged(runs: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """One run: every user's values averaged over seeds."""
    keys = ("row", "user_index", *Metric._fields)
    return [pl.concat(runs).group_by(keys, maintain_order=True).mean()]


def print_table(table: pl.DataFrame, metric: Metric) -> None:
    """One metric: mean, and the difference to the base row with its paired interval."""
    for line in metric.lines(table).iter_rows(named=True):
        text = f"  {line['row']:32s} {line['mean']:.4f}"
        if line["base"] is not None:
            low, high = line["difference_low"], line["difference_high"]
            text += f"  {line['difference']:+.4f} [{low:+.4f}, {high:+.4f}] against {line['base']}"
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--picture", type=Path, help="draw HR@1 against popularity lift here")
    parser.add_argument("--valid", action="store_true", help="print validation scores alone")
    options = parser.parse_args()
    runs, rows = [], []
    for seed in range(options.seeds):
        folder = compared(options.root, options.preset, options.settings, seed)
        manifest = json.loads((folder / "manifest.json").read_text())
        rows = [ComparedRow(**row) for row in manifest["config"]["rows"]]
        scores = manifest["figures"]["validation"]
        print(f"seed {seed}, validation:", {name: round(one, 4) for name, one in scores.items()})
        runs.append(pl.read_parquet(folder / "per_user.parquet"))
    if options.valid:
        return
    if options.preset not in ("embedded", "tiny"):
        runs = averaged(runs)
    means = resample(runs, 2000, 0)
    results = means.results(rosepo_rows(rows))
    contrasts = contrast_table(rows, means)
    if options.picture and (drawn := tradeoff(results, METRICS[0], LIFT)):
        options.picture.write_text(drawn.replace('style="', 'style="background:#fff;', 1))
    for metric in METRICS:
        print(f"\n{metric.label} on test, {options.seeds} seeds pooled")
        print_table(results, metric)
    for (question,), answers in contrasts.group_by("question", maintain_order=True):
        for metric in METRICS[:3]:
            print(f"\n{question} {metric.label}")
            print_table(answers, metric)


if __name__ == "__main__":
    main()
