"""How far alignments moved from their first policy, and who still finds their texts better.

    recalign sweep dpo4rec --over alignment.beta=0.01,0.03,0.1,0.3,1 ...   (ends at leaderboard/ID)
    python benchmarks/over_optimisation.py leaderboard/ID [--root artifacts] [--users 300]
                                           [--figure curve.svg]

A row per setting of a DPO4Rec sweep, nearest to the first policy first. KL(policy, first policy)
is estimated on the policy's own sampled texts of test users, in nats a text and nats a token: the
mean of log pi(text) - log pi_0(text). All texts that ended by themselves count, malformed ones too.
Beside it stands what NDCG@10 of sampled texts gains over the first policy's, read by the
recommender that gave the rewards, by one fitted anew on the policy's texts, and by one that gave no
reward. A policy is over-optimised where the first still rises and the last falls. 95 % intervals
are over users and training seeds.
"""

import argparse
import re
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from recalign.alignment.groups import Groups
from recalign.alignment.reference import token_log_probs_of
from recalign.artifacts.artifact import Artifact
from recalign.artifacts.lookup import resolve
from recalign.artifacts.store import Store
from recalign.config import AlignmentConfig
from recalign.policy import Policy
from recalign.report.drawing import GREY, ROUND_COLOURS, draw
from recalign.report.terminal import print_table
from recalign.schemas import PROMPTS, REASONINGS
from recalign.stored import open_policy

READERS = {
    "the reward's": "Aligned policy, sampled",
    "fitted anew": "Aligned policy, sampled, refitted recommender",
    "gave no reward": "Aligned policy, sampled, independent recommender",
}
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5)
HEADER = ["setting", "KL, nats a text", "a token", *READERS]


@dataclass(frozen=True)
class Measured:
    """One setting of the sweep, over its seeds."""

    setting: str
    nats_a_text: float
    nats_a_token: float
    gains: list[tuple[float, float, float]]
    """NDCG@10 above the first policy's and its interval, by each of the readers."""


def encoded(policy: Policy, texts: Artifact, n_users: int) -> Groups:
    """Prompts of the first users and the samples for each that ended by themselves, as token ids.

    Malformed ones too: without what has left the grammar, a policy would seem nearer than it is.
    """
    asked = PROMPTS.read(texts).sort("user_index").head(n_users).select("user_index", "prompt")
    cut = pl.col("n_tokens") >= texts.manifest.config["max_new_tokens"]
    ended = ~cut & ~pl.col("malformed").fill_null("").is_in(["unfinished", "empty"])
    sampled = REASONINGS.read(texts).filter(ended, pl.col("sample") >= 0)
    told = sampled.group_by("user_index", maintain_order=True).agg("reasoning")
    table = asked.join(told, on="user_index", how="inner", maintain_order="left")
    samples = [
        [policy.encode_completion(text) for text in own] for own in table["reasoning"].to_list()
    ]
    return Groups(
        users=table["user_index"].to_numpy(),
        prompts=[policy.encode_prompt(prompt) for prompt in table["prompt"]],
        completions=samples,
        rewards=[[0.0] * len(row) for row in samples],
        chosen=[0] * len(samples),
        titles=False,
        left_out={},
    )


def kl_of(store: Store, report: str, n_users: int) -> tuple[float, float]:
    """KL(policy, first policy) of one cell's aligned policy: nats a text, and nats a token."""
    inputs = resolve(store, report).inputs
    texts = store.open(inputs["aligned"])
    policies = (texts.manifest.inputs["policy"], inputs["policy"])
    told = []
    for reference in policies:
        policy = open_policy(store.open(reference), str(store.root), "cpu")
        rows = encoded(policy, texts, n_users)
        scored = token_log_probs_of(policy, rows, AlignmentConfig(micro_batch_size=16))
        told.append(np.concatenate(scored.rows))
    moved = told[0] - told[1]
    n_texts = sum(len(row) for row in rows.completions)
    return float(moved.sum()) / n_texts, float(moved.mean())


def gains(board: pl.DataFrame, setting: str) -> list[tuple[float, float, float]]:
    """NDCG@10 above the first policy's, with its interval, by each of the readers."""
    rows = board.filter(
        pl.col("setting") == setting, pl.col("lists") == "catalogue", pl.col("measure") == "NDCG",
        pl.col("k") == 10,
    )  # fmt: skip
    columns = ("difference", "difference_low", "difference_high")
    return [rows.filter(pl.col("row") == row).select(columns).row(0) for row in READERS.values()]


def drawn(measured: list[Measured]) -> str:
    """An SVG of gains against how far the policies have moved, a colour per optimiser.

    Solid: read by the recommender that gave the rewards; dashed: by the one that gave none. An
    optimiser is what stands before the first comma or "=" of a setting's name.
    """
    lines: dict[str, list[Measured]] = {}
    for one in measured:
        lines.setdefault(re.split("[,=]", one.setting)[0], []).append(one)

    def paint(axes: Axes) -> None:
        for (name, own), colour in zip(lines.items(), cycle(ROUND_COLOURS), strict=False):
            distance = [one.nats_a_text for one in own]
            for place, style in ((0, "-"), (2, "--")):
                middle, low, high = np.array([one.gains[place] for one in own]).T
                axes.plot(distance, middle, style, marker="o", markersize=4, color=colour,
                          label=name if place == 0 else None)  # fmt: skip
                if len(lines) == 1:
                    axes.fill_between(distance, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(0, linewidth=0.8, color=GREY)
        axes.set(xscale="log", xlabel="KL to the first policy, nats a text")
        axes.set(ylabel="NDCG@10 gained, sampled texts")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], minor=False)
        axes.set_xticks([], minor=True)
        axes.legend(loc="upper left")

    picture = draw(paint, "Gain against how far the policy has moved", 6.4, 3.8)
    return picture.replace('style="', 'style="background:#fff;', 1)


def main() -> None:
    """Print the table of one sweep, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("leaderboard")
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    store = Store(given.root)
    made = store.open(resolve(store, given.leaderboard).reference)
    cells = pl.read_parquet(made.folder / "cells.parquet").drop_nulls("run")  # some failed
    board = pl.read_parquet(made.folder / "leaderboard.parquet")
    measured = []
    for (setting,), runs in cells.group_by("setting", maintain_order=True):
        moved = np.mean([kl_of(store, run, given.users) for run in runs["run"]], axis=0)
        measured.append(Measured(str(setting), *moved, gains(board, str(setting))))
    measured.sort(key=lambda one: one.nats_a_text)
    print_table(
        HEADER,
        [
            [one.setting, f"{one.nats_a_text:.2f}", f"{one.nats_a_token:.3f}"]
            + [f"{value:+.4f} [{low:+.4f}, {high:+.4f}]" for value, low, high in one.gains]
            for one in measured
        ],
    )
    if given.figure:
        given.figure.write_text(drawn(measured))


if __name__ == "__main__":
    main()
