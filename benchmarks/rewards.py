"""Rewards of all samples at once against one sample at a time, same weights, one thread, CPU time.

    python benchmarks/rewards.py [--items 1000] [--users 1500] [--looped 40] [--repeats 3]

The loop encodes the user's history, scores the catalogue with the text and ranks the targets, for
every sample anew, as a per-sample reward function would. Ours encodes each user once and scores
all samples in blocks. "cached states" leaves the encoding of users out, as when rewards are
computed again for other texts. Repeats are interleaved; the median counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.config import OracleConfig, RecommenderConfig, RewardsConfig
from recalign.oracle.inference import states_of
from recalign.oracle.sasrec import SASRec
from recalign.recommender.examples import ItemVectors
from recalign.recommender.model import KnowledgeRecommender, start_model
from recalign.rewards.score import RewardWindow, SampledTexts, score_rewards
from recalign.sequences import Sequences

N_SAMPLES, N_TARGETS, HISTORY, WIDTH = 10, 8, 36, 384
GOAL, RATE = 50.0, 28_000  # times the loop with cached states; per CPU second without


class Problem:
    """Random users, items and texts; weights at their start: time does not depend on them."""

    def __init__(self, n_users: int, n_items: int) -> None:
        rng = np.random.default_rng(0)
        length = HISTORY + N_TARGETS
        rows = [rng.choice(n_items, size=length, replace=False) + 1 for _ in range(n_users)]
        self.sequences = Sequences(np.arange(n_users + 1) * length, np.concatenate(rows), n_items)
        self.users = np.arange(n_users)
        self.starts = np.full(n_users, HISTORY)
        items = np.stack(rows)
        self.seen, self.targets = items[:, :HISTORY], items[:, HISTORY:]
        item_text = torch.randn(n_items + 1, WIDTH)
        self.oracle = SASRec(OracleConfig(), n_items, item_text).eval()
        self.texts = rng.standard_normal((n_users * N_SAMPLES, WIDTH), dtype=np.float32)
        self.text_rows = np.arange(n_users * N_SAMPLES).reshape(n_users, N_SAMPLES)
        self.samples = np.tile(np.arange(N_SAMPLES), (n_users, 1))
        with torch.no_grad():
            self.matrix, self.bias = self.oracle.item_matrix(), self.oracle.bias
        self.reader: KnowledgeRecommender = start_model(
            RecommenderConfig(),
            ItemVectors(self.matrix, self.bias, item_text.numpy()),
            torch.from_numpy(self.texts[:2000]),
        )

    def states(self) -> Tensor:
        return states_of(self.oracle, self.sequences, self.users, self.starts)

    def rewards(self, states: Tensor) -> pl.DataFrame:
        n_items = len(self.matrix) - 1
        window = RewardWindow(self.users, states, self.targets, self.seen, n_items)
        texts = SampledTexts(self.users, self.texts, self.text_rows, self.samples)
        return score_rewards(self.reader.scores, window, texts, RewardsConfig())

    @torch.inference_mode()
    def looped(self, n_users: int) -> np.ndarray:
        """Full-depth NDCG of every sample of the first users, one at a time, float64 [n, S]."""
        rewards = np.empty((n_users, N_SAMPLES))
        ideal = (1 / np.log2(np.arange(2.0, N_TARGETS + 2))).sum()
        for user in range(n_users):
            targets = torch.from_numpy(self.targets[user])
            for sample in range(N_SAMPLES):
                history = torch.from_numpy(self.seen[user])[None]
                state = self.oracle.states(history, torch.tensor([HISTORY]), self.matrix)
                text = torch.from_numpy(self.texts[self.text_rows[user, sample]])
                scores = self.reader.scores(state, text[None, None])[0, 0]
                scores[0] = -torch.inf
                scores[history[0]] = -torch.inf
                ranks = (scores >= scores[targets][:, None]).sum(1)
                rewards[user, sample] = (1 / torch.log2(1 + ranks.double())).sum().item() / ideal
        return rewards


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("items", 1000), ("users", 1500), ("looped", 40), ("repeats", 3)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    problem = Problem(chosen.users, chosen.items)
    states = problem.states()
    ours = problem.rewards(states)["ndcg_full"].to_numpy().reshape(-1, N_SAMPLES)
    loop = problem.looped(chosen.looped)
    print(f"largest difference of a reward: {np.abs(ours[: chosen.looped] - loop).max():.1e}")

    times: dict[str, list[float]] = {"loop": [], "ours": [], "cached states": []}
    for _ in range(chosen.repeats):
        scale = chosen.users / chosen.looped
        times["loop"].append(scale * seconds(lambda: problem.looped(chosen.looped)))
        times["ours"].append(seconds(lambda: problem.rewards(problem.states())))
        times["cached states"].append(seconds(lambda: problem.rewards(states)))
    base = statistics.median(times["loop"])
    for name, measured in times.items():
        median = statistics.median(measured)
        rate = chosen.users * N_SAMPLES / median
        print(f"{name:14s} {rate:9,.0f} samples per CPU second  {base / median:6.1f}x")
    ratio = base / statistics.median(times["cached states"])
    rate = chosen.users * N_SAMPLES / statistics.median(times["ours"])
    reached = "reached" if ratio >= GOAL and rate >= RATE else "MISSED"
    print(f"goal {GOAL:.0f}x with cached states, {RATE:,} a second without: {reached}")


if __name__ == "__main__":
    main()
