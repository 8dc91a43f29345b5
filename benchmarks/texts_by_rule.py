"""What can a text about a user add to the recommender at all? Texts by rule, before any LLM.

    recalign run dpo4rec ... --root ROOT --stop-after oracle
    python benchmarks/texts_by_rule.py ROOT [--seeds 3] [--users 2000] [--text FILE]...
                                       [--encoder minilm] [--held-out 0.2]

Reads interactions, splits and the oracle of ROOT. Each kind of text is written about the users'
histories, a recommender is fitted on those of the fit window, and validation says what it gains
beside the sequence model alone, and beside the texts of other users. The guard's figure is that of
the fit window's held-out users, own texts against those of others, which decides whether a run goes
on. The last two rows know the item that is taken next: what a perfect text would add. Intervals
are over users, per seed. --encoder and --held-out: give those of the run that is meant
(`recommender.encoder`, `recommender.held_out`), for its preset may say otherwise. --text tries
templates of yours instead (see `policy.warm_up.text`). With `splits.others_fit` the recommender
learns from the texts about the other users, too, as in a run.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recalign.artifacts.store import Store
from recalign.config import RecommenderConfig
from recalign.embedded.reasoners import facets_of, reasonings_by_rule
from recalign.metrics import ndcg
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.ranking import target_ranks
from recalign.reasonings.prompts import Renderer
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.examples import ItemVectors
from recalign.recommender.fit import fit_recommender
from recalign.recommender.model import KnowledgeRecommender
from recalign.recommender.signal import t_interval
from recalign.recommender.window import fit_examples
from recalign.splits.phases import Phase, phase_of
from tasks.rule_texts import rule_texts
from tasks.tables import read_tables

HISTORY = 12
ROWS = 500


@dataclass
class Data:
    """What a root holds, and the users that are looked at."""

    root: Path
    n_users: int
    recommender: RecommenderConfig

    def __post_init__(self) -> None:
        store = Store(self.root)
        oracles = [
            one
            for one in store.manifests("oracle")
            if one.config.get("architecture", "sasrec") == "sasrec"
        ]
        if not oracles:
            raise SystemExit(f"{self.root}: no SASRec here; run up to the oracle first")
        newest = store.open(max(oracles, key=lambda one: one.created).reference)
        read = (store.open(newest.manifest.inputs[name]) for name in ("interactions", "splits"))
        self.tables = read_tables(*read)
        self.model, _ = load_oracle(newest.folder, "cpu")
        name = self.recommender.encoder
        self.encoder = SentenceEncoder(name, self.root / ".cache" / "sentences", "cpu")
        self.fit, self.valid = (self.some_of(name) for name in ("fit", "valid"))
        self.asked = self.fit.users
        self.fit = self.fit.beside(phase_of(self.tables.windows, "fit", prompted=False))
        sequences, valid = self.tables.sequences, self.valid
        self.states = states_of(self.model, sequences, valid.users, valid.starts)
        before, _ = sequences.until(valid.users, valid.starts, int(valid.starts.max()))
        self.seen = torch.from_numpy(before)
        self.targets = torch.from_numpy(valid.targets(sequences))

    def some_of(self, name: Any) -> Phase:
        phase = phase_of(self.tables.windows, name)
        order = np.random.default_rng(0).permutation(len(phase.users))
        rows = np.sort(order[: self.n_users])
        users, starts, ends = phase.users[rows], phase.starts[rows], phase.ends[rows]
        return replace(phase, users=users, starts=starts, ends=ends)

    @cached_property
    def items(self) -> ItemVectors:
        text = self.encoder.encode_items(self.tables.items["text"].to_list())
        return ItemVectors(self.model.item_matrix(), self.model.bias, text)

    def gains(self, recommender: KnowledgeRecommender, texts: Tensor | None) -> np.ndarray:
        """NDCG@10 of every validation user, with a text each [U, e] or without."""
        found = []
        for start in range(0, len(self.states), ROWS):
            rows = slice(start, start + ROWS)
            if texts is None:
                scores = recommender.base_scores(self.states[rows])
            else:
                scores = recommender.scores(self.states[rows], texts[rows, None])[:, 0]
            ranks = target_ranks(scores, self.targets[rows], self.seen[rows])
            found.append(ndcg(ranks.numpy(), (self.targets[rows] > 0).sum(1).numpy(), 10))
        return np.concatenate(found)


Texts = Callable[[list[np.ndarray], list[np.ndarray]], list[str]]
"""Texts of the histories; the items taken next are given for the rows that know them."""


def of_template(template: str, items: pl.DataFrame) -> Texts:
    return lambda histories, _: rule_texts(template, items, histories)


def kinds(items: pl.DataFrame) -> dict[str, Texts]:
    facets, shown = facets_of(items), Renderer("likes", items).items

    def by_rule(name: Any) -> Texts:
        return lambda histories, _: reasonings_by_rule(name, facets, histories, 0)

    def titles(histories: list[np.ndarray], _: list[np.ndarray]) -> list[str]:
        return [" ".join(f"{shown[int(i)].title}." for i in h[-3:]) for h in histories]

    def next_attributes(_: list[np.ndarray], following: list[np.ndarray]) -> list[str]:
        told = [shown[int(items[0])].attributes for items in following]
        return [" ".join(f"{v}." for vs in one.values() for v in vs) or "None." for one in told]

    def next_title(_: list[np.ndarray], following: list[np.ndarray]) -> list[str]:
        return [f"{shown[int(items[0])].title}." for items in following]

    return {
        "most frequent values (counts)": by_rule("counts"),
        "strongest values (lift)": by_rule("lift"),
        "last three titles": titles,
        "values and last titles (likes)": of_template("likes", items),
        "attributes of the next item": next_attributes,
        "title of the next item": next_title,
    }


def written(data: Data, kind: Texts, phase: Phase) -> list[str]:
    sequences = data.tables.sequences
    first = np.maximum(phase.starts - HISTORY, 0)
    histories = sequences.slices(phase.users, first, phase.starts)
    return [text or "None." for text in kind(histories, list(phase.targets(sequences)))]


def measured(data: Data, kind: Texts, seed: int) -> str:
    seen = data.tables.before("recommender", data.tables.windows["reward_start"].to_numpy())
    table = pl.DataFrame(
        {"user_index": data.fit.users, "reasoning": written(data, kind, data.fit)}
    ).with_columns(sample=pl.lit(-1), malformed=pl.lit(None, pl.String))
    examples, _ = fit_examples(
        table,
        data.fit.users,
        data.fit.starts,
        data.fit.targets(seen),
        data.encoder.encode_unique,
        partial(states_of, data.model, seen),
        seen,
    )
    config = data.recommender.model_copy(update={"seed": seed})
    fitted = fit_recommender(config, examples, data.items, judged=data.asked)
    vectors, rows = data.encoder.encode_unique(written(data, kind, data.valid))
    own = torch.from_numpy(vectors[rows])
    circle = np.random.default_rng(seed).permutation(len(own))
    others = np.empty_like(circle)
    others[circle] = np.roll(circle, 1)
    fitted.model.eval()
    told, alone = data.gains(fitted.model, own), data.gains(fitted.model, None)
    foreign = data.gains(fitted.model, own[others])
    guard = fitted.figures
    nats = [guard[f"log_prob_{name}"] for name in ("difference", "low", "high")]
    at_fit = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*nats)
    return " | ".join([f"{told.mean():.4f}", cell(told - alone), cell(told - foreign), at_fit])


def cell(differences: np.ndarray) -> str:
    mean, low, high = t_interval(differences)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--users", type=int, default=1 << 30)
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--encoder", default=RecommenderConfig().encoder)
    parser.add_argument("--held-out", type=float, default=RecommenderConfig().held_out)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    reader = RecommenderConfig(encoder=asked.encoder, held_out=asked.held_out)
    data = Data(asked.root, asked.users, reader)
    print(f"{len(data.valid.users)} validation users, {data.tables.items.height} items")
    items = data.tables.items
    asked_for = {template: of_template(template, items) for template in asked.text}
    print("| text | seed | NDCG@10 | against no text | against texts of others | guard, nats |")
    print("|---|---|---|---|---|---|")
    for name, kind in (asked_for or kinds(items)).items():
        for seed in range(asked.seeds):
            print(f"| {name} | {seed} | {measured(data, kind, seed)} |", flush=True)


if __name__ == "__main__":
    main()
