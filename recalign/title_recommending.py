"""Recommending by a finished RosePO run: the LLM ranks titles, all of them or SASRec's best."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import polars as pl
import torch

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.store import Store
from recalign.chain import title_chain_of_run
from recalign.config import ServingConfig, TitleServingConfig
from recalign.oracle.inference import states_of
from recalign.oracle.sequence_model import SequenceModel
from recalign.oracle.storage import load_oracle
from recalign.ranking import best_items
from recalign.schemas import INTERACTIONS, ITEMS, USERS
from recalign.seeding import stream
from recalign.sequences import Sequences
from recalign.serving.rows import asked_users, listed_rows, unlisted_rows
from recalign.serving.top_lists import TopLists, top_lists
from recalign.stored import open_policy, title_prompt
from recalign.titles.likelihood import TitleReading, TitleScorer
from recalign.titles.names import distinct_titles
from recalign.titles.prompts import TitlePrompts


@dataclass(frozen=True)
class TitleRanker:
    """A catalogue and histories, the LLM that names items, and SASRec, which can pick first."""

    items: pl.DataFrame
    """ITEMS."""
    sequences: Sequences
    oracle: SequenceModel
    scorer: TitleScorer
    prompts: TitlePrompts
    rows_at_once: int

    def lists(self, users: np.ndarray, config: TitleServingConfig) -> TopLists:
        """The best items of `users` [U], all with a history, by log-probability of their titles."""
        made = list(self.in_batches(users, config))
        return TopLists(
            np.concatenate([one.items for one in made]),
            np.concatenate([one.scores for one in made]),
        )

    def in_batches(self, users: np.ndarray, config: TitleServingConfig) -> Iterator[TopLists]:
        """The same in order, as many users at a time as the LLM reads at once; none for none."""
        if not len(users):
            return
        stops = self.sequences.lengths[users]
        seen = np.zeros((len(users), 1), dtype=np.int64)
        if config.exclude_seen:
            seen, _ = self.sequences.until(users, stops, int(stops.max()))
        picked = self._picked(users, seen, config)
        histories = self.sequences.slices(users, np.zeros_like(stops), stops)
        prompts = [
            self.scorer.policy.encode_prompt(self.prompts.text(items.tolist(), shown))
            for items, shown in zip(histories, self._shown(users, picked), strict=True)
        ]
        step = self.scorer.rows_at_once(prompts, self.rows_at_once)
        for rows in (slice(start, start + step) for start in range(0, len(users), step)):
            yield self._ranked(self.scorer.read(prompts[rows]), rows, seen, picked, config)

    def _picked(
        self, users: np.ndarray, seen: np.ndarray, config: TitleServingConfig
    ) -> np.ndarray | None:
        """SASRec's best candidates, int64 [U, C]; None where the LLM ranks the catalogue."""
        asks = self.prompts.config
        n = config.candidates or (asks.n_candidates if asks.format == "candidates" else 0)
        if not n:
            return None
        return self.recalled(users, seen, max(n, config.k))

    @torch.no_grad()
    def recalled(self, users: np.ndarray, seen: np.ndarray, n: int) -> np.ndarray:
        """SASRec's own best n of `users` [U] without `seen` [U, L]: int64 [U, n], 0 where none."""
        states = states_of(self.oracle, self.sequences, users, self.sequences.lengths[users])
        left = torch.cat([states, torch.ones_like(states[:, :1])], 1)
        right = torch.cat([self.oracle.item_matrix(), self.oracle.bias[:, None]], 1)
        return top_lists(left, right, seen, n).items

    def _shown(self, users: np.ndarray, picked: np.ndarray | None) -> list[list[int]]:
        """The titles to pick from in each prompt, in an order that says nothing; none in lines.

        The order is drawn by the history, so that users of equal histories have equal lists.
        """
        if picked is None or self.prompts.config.format == "history":
            return [[]] * len(users)
        histories = [self.sequences.slice(int(user), 0, 1 << 62).tobytes() for user in users]
        orders = (stream(0, "candidates shown", sha256(one).hexdigest()) for one in histories)
        return [
            order.permutation(items[items > 0]).tolist()
            for order, items in zip(orders, picked, strict=True)
        ]

    def _ranked(
        self,
        reading: TitleReading,
        rows: slice,
        seen: np.ndarray,
        picked: np.ndarray | None,
        config: TitleServingConfig,
    ) -> TopLists:
        """The lists of the prompts that were read."""
        if picked is not None:
            items, scores = picked[rows], reading.candidates(picked[rows])
            order = np.argsort(-scores, axis=1, kind="stable")[:, : config.k]
            items, scores = (
                np.take_along_axis(items, order, 1),
                np.take_along_axis(scores, order, 1),
            )
        elif config.beam:
            items, scores = reading.beam(max(config.beam, config.k), list(seen[rows]))
            items, scores = items[:, : config.k], scores[:, : config.k]
        else:
            known = reading.catalogue()
            hidden = torch.from_numpy(seen[rows]).to(known.device)
            values, best = best_items(known, hidden, min(config.k, self.items.height))
            items, scores = best.cpu().numpy(), values.float().cpu().numpy()
        return TopLists(items, np.where(items > 0, scores, 0).astype(np.float32))


def open_title_ranker(
    histories: Artifact,
    oracle: Artifact,
    policy: Artifact,
    root: str,
    device: str,
    *,
    rows: int = 2048,
    mean: bool = False,
    template: str = "",
) -> TitleRanker:
    """The models of these artifacts on a device; at most `rows` prompts are read at once.

    device: see `open_policy`; template: see `title_prompt`, which raises before models are read.
    """
    prompt = title_prompt(policy, root, template)
    items = ITEMS.read(histories)
    sequences = Sequences.of(INTERACTIONS.read(histories), items.height)
    opened, titles = open_policy(policy, root, device), distinct_titles(items)
    model, _ = load_oracle(oracle.folder, str(opened.model.device))
    title_ids = [[], *(opened.encode_completion(title) for title in titles[1:])]
    scorer = TitleScorer(opened, title_ids, mean=mean)
    return TitleRanker(items, sequences, model, scorer, TitlePrompts(prompt, titles), rows)


def recommend_by_title(
    store: Store, root: str, report: Manifest, user_ids: pl.Series, config: ServingConfig
) -> pl.DataFrame:
    """SERVING rows of these users by the RosePO run of this report; see `recommend_users`."""
    chain = title_chain_of_run(store, report)
    world = store.open(chain.interactions)
    asked = asked_users(user_ids, USERS.read(world), pl.Series([], dtype=pl.String))
    known = asked.filter(pl.col("user_index").is_not_null())
    rows = [unlisted_rows(*asked.filter(pl.col("user_index").is_null())["user_id", "why_none"])]
    if known.height:
        mean, oracle = chain.judged["likelihood"] == "mean", store.open(chain.oracle)
        ranker = open_title_ranker(world, oracle, store.open(chain.policy), root, "", mean=mean)
        users = known["user_index"].to_numpy().astype(np.int64)
        lists = ranker.lists(users, TitleServingConfig(**dict(config), **chain.judged))
        nothing = pl.Series([None] * known.height, dtype=pl.String)
        rows.insert(0, listed_rows(known["user_id"], lists, nothing, ranker.items))
    return pl.concat(rows)
