"""Run DPO4Rec with several seeds and pool the test results: python benchmarks/seeds.py --seeds 3.

Every seed changes the world, the windows' drawn lists, all initial weights and all sampling.
Artifacts are kept, so a second call only prints.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from recalign.embedded.reasoners import REASONERS
from recalign.evaluation.result_table import resample
from recalign.evaluation.texts.rows import dpo4rec_rows
from recalign.metric_columns import CATALOGUE, NDCG_AT_10, Metric

SEEDED = ("interactions.synthetic", "splits", "oracle", "policy.bootstrap", "reasonings",
          "recommender", "alignment", "evaluation")  # fmt: skip
METRICS = (NDCG_AT_10, Metric(CATALOGUE, "NDCG"), Metric("uniform", "NDCG", 10))


def report_inputs(
    root: Path, preset: str, settings: list[str], seed: int
) -> dict[str, dict[str, str]]:
    """What the seed's report stands on, computed if need be."""
    seeds = [f"{name}.seed={seed}" for name in SEEDED]
    options = [part for text in settings + seeds for part in ("--set", text)]
    recalign = str(Path(sys.executable).parent / "recalign")
    command = [recalign, "run", "dpo4rec", "--root", str(root), "--preset", preset, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    page = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: "))
    return json.loads((page.parent / "manifest.json").read_text())["inputs"]


def artifact(root: Path, reference: dict[str, str]) -> Path:
    """The folder of an artifact that a manifest names."""
    return root / reference["stage"] / reference["fingerprint"]


def print_table(rows: pl.DataFrame) -> None:
    """One metric: mean, and the difference to the base row with its paired interval."""
    for line in rows.iter_rows(named=True):
        gain = ""
        if line["base"] is not None:
            low, high = line["difference_low"], line["difference_high"]
            gain = f"{line['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
            gain += f" {100 * line['relative']:+.1f} % against {line['base']}"
        print(f"  {line['row']:48s} {line['mean']:.4f}  {gain}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    runs, texts = [], []
    for seed in range(options.seeds):
        inputs = report_inputs(options.root, options.preset, options.settings, seed)
        folder = artifact(options.root, inputs["evaluation"])
        runs.append(pl.read_parquet(folder / "per_user.parquet"))
        texts.append(pl.read_parquet(folder / "texts.parquet"))
        for name in sorted(name for name in inputs if name.startswith("validation_")):
            manifest = artifact(options.root, inputs[name]) / "manifest.json"
            score = json.loads(manifest.read_text())["figures"]["validation_score"]
            print(f"seed {seed}, {name.replace('_', ' of round ')}: NDCG {score:.4f}")
    pooled = resample(runs, 2000, 0).results(dpo4rec_rows(list(REASONERS)))
    for metric in METRICS:
        print(f"\n{metric.label} on test, {options.seeds} seeds pooled")
        print_table(metric.lines(pooled))
    print(pl.concat(texts).group_by("texts", maintain_order=True).mean())


if __name__ == "__main__":
    main()
