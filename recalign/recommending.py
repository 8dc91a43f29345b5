"""Recommending by a finished DPO4Rec run: histories to texts, and both to the best items."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.digests import file_digest
from recalign.artifacts.manifest import Manifest
from recalign.artifacts.roots import local_root
from recalign.artifacts.store import Store
from recalign.chain import Chain, chain_of_run
from recalign.config import ServingConfig
from recalign.errors import UserError
from recalign.oracle.inference import states_of
from recalign.oracle.sequence_model import SequenceModel
from recalign.oracle.storage import load_oracle
from recalign.reasonings.generation import write_shard
from recalign.reasonings.prompts import Renderer, render_prompts, template_file
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.model import KnowledgeRecommender
from recalign.recommender.sentences import ENCODER_WEIGHTS
from recalign.recommender.storage import load_recommender
from recalign.schemas import INTERACTIONS, ITEMS, USERS
from recalign.sequences import Before, Sequences
from recalign.serving.rows import asked_users, listed_rows, unlisted_rows
from recalign.serving.top_lists import top_lists
from recalign.stored import grammar_of, open_policy
from recalign.writer import Asked


@dataclass(frozen=True)
class Ranker:
    """A catalogue and histories, and the models that rank the one by the other."""

    items: pl.DataFrame
    """ITEMS."""
    sequences: Sequences
    oracle: SequenceModel
    reader: KnowledgeRecommender
    encoder: SentenceEncoder

    def rows(self, users: pl.DataFrame, config: ServingConfig) -> pl.DataFrame:
        """SERVING rows of users (user_id, user_index, reasoning) with a history.

        Where the reasoning is null, the sequence model ranks alone.
        """
        index = users["user_index"].to_numpy().astype(np.int64)
        stops = self.sequences.lengths[index]
        states = states_of(self.oracle, self.sequences, index, stops)
        written = users["reasoning"]
        vectors, rows = self.encoder.encode_unique(written.fill_null("").to_list())
        read = torch.from_numpy(written.is_not_null().to_numpy()).to(states.device)
        texts = torch.from_numpy(vectors[rows]).to(states.device)
        seen: np.ndarray | Before = np.zeros((len(index), 1), dtype=np.int64)
        if config.exclude_seen:
            seen = Before(self.sequences, index, stops)
        user_vectors = self.reader.user_vectors(states, texts, read)
        lists = top_lists(user_vectors, self.reader.item_vectors(), seen, config.k)
        return listed_rows(users["user_id"], lists, written, self.items)


def open_ranker(
    interactions: Artifact,
    oracle: Artifact,
    recommender: Artifact,
    encoder: SentenceEncoder,
    device: str,
) -> Ranker:
    """The models of these artifacts on a device, over the histories of `interactions`."""
    items = ITEMS.read(interactions)
    sequences = Sequences.of(INTERACTIONS.read(interactions), items.height)
    model, _ = load_oracle(oracle.folder, device)
    reader, _ = load_recommender(recommender.folder, device)
    return Ranker(items, sequences, model, reader, encoder)


def recommend_users(
    store: Store, root: str, report: Manifest, user_ids: pl.Series, config: ServingConfig
) -> pl.DataFrame:
    """SERVING rows of these users by the run of this report, from all that the run knows of them.

    For a few users, here and now; `recalign recommend` is for all of them.
    """
    chain = chain_of_run(store, report).for_catalogue()
    world = store.open(chain.interactions)
    asked = asked_users(user_ids, USERS.read(world), pl.Series([], dtype=pl.String))
    known = asked.filter(pl.col("user_index").is_not_null())
    rows = [unlisted_rows(*asked.filter(pl.col("user_index").is_null())["user_id", "why_none"])]
    if known.height:
        recommender = store.open(chain.recommender)
        cache = local_root(root) / ".cache" / "sentences"
        made = recommender.manifest
        encoder = SentenceEncoder(
            made.config["encoder"], cache, fitted=made.figures.get(ENCODER_WEIGHTS)
        )
        ranker = open_ranker(world, store.open(chain.oracle), recommender, encoder, "cpu")
        texts = _texts(store, root, chain, ranker, known["user_index"].to_numpy())
        told = known.join(texts, on="user_index", how="left", maintain_order="left")
        rows.insert(0, ranker.rows(told, config))
    return pl.concat(rows)


def _texts(
    store: Store, root: str, chain: Chain, ranker: Ranker, users: np.ndarray
) -> pl.DataFrame:
    """user_index and the greedy reasoning of each of `users` whose text can be used."""
    from recalign.llm.local_writer import LocalWriter  # transformers: seconds

    policy = store.open(chain.policy)
    render = Renderer(str(template_path(chain)), ranker.items)
    stops = ranker.sequences.lengths[users]
    prompts = render_prompts(render, ranker.sequences, users, stops, chain.asked.history_items)
    asked = Asked(chain.asked, n_samples=0, greedy=True)
    writer = LocalWriter(open_policy(policy, root, ""))
    table = write_shard(writer, prompts, asked, grammar_of(policy, root))
    return table.filter(pl.col("malformed").is_null()).select("user_index", "reasoning")


def template_path(chain: Chain, given: str = "") -> Path:
    """The run's prompt template; UserError where it is not found, or has other content now.

    Unless it is given: the file in the working folder that is the run's, or the packaged one.
    """
    local = Path(chain.template)
    is_the_runs = local.is_file() and file_digest(local) == chain.template_digest
    path = template_file(given or (chain.template if is_the_runs else local.stem))
    if file_digest(path) != chain.template_digest:
        raise UserError(
            f"{path} has other content than the run's template {chain.template}: "
            "name that file by --template"
        )
    return path
