"""The sentence encoder of a stage; where shards are spread, its workers encode what is new."""

from collections.abc import Iterator
from dataclasses import dataclass
from socket import gethostname
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.config import Runtime
from recalign.errors import UserError
from recalign.recommender.sentences import ENCODER_WEIGHTS
from tasks.engine.job import Job
from tasks.engine.spread import is_mapped, map_shards, opened_last, worker_device, worker_runtime

if TYPE_CHECKING:
    from recalign.recommender.encoder import SentenceEncoder


@dataclass(frozen=True)
class SentenceShard:
    """Sentences without a vector, and the encoder that gives them one: its name and weights."""

    runtime: Runtime
    encoder: str
    digest: str
    sentences: list[str]


def open_fitted_encoder(job: Job, recommender: Artifact) -> "SentenceEncoder":
    """The encoder that this recommender was fitted with; UserError where it has other weights."""
    made = recommender.manifest
    return open_encoder(job, made.config["encoder"], made.figures.get(ENCODER_WEIGHTS))


def open_encoder(job: Job, name: str, fitted: str | None = None) -> "SentenceEncoder":
    """The encoder `name` with the root's cache of sentences: what is in it is not encoded again."""
    from recalign.recommender.encoder import SentenceEncoder  # torch: seconds

    cache = job.cache / "sentences"
    if not is_mapped(job.runtime):
        return SentenceEncoder(name, cache, job.device, fitted=fitted)
    runtime = worker_runtime(job.runtime)

    def encode(chunks: list[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
        shards = [SentenceShard(runtime, name, opened.digest, chunk) for chunk in chunks]
        return map_shards(job, encode_sentences, shards)

    opened = SentenceEncoder(name, cache, encode=encode, fitted=fitted)
    return opened


def item_vectors(
    job: Job, encoder: str, items: pl.DataFrame, about: pl.DataFrame | None = None
) -> np.ndarray:
    """The text vector of every item, float32 [I+1, e]; row 0 is padding.

    about: ITEM_REASONINGS, whose usable texts are read beside the item's title and attributes. An
    item without one gets their mean, so that it is no outlier. UserError where none is usable.
    """
    opened = open_encoder(job, encoder)
    vectors = opened.encode_items(items["text"].to_list(), job.progress)
    if about is not None:
        usable = about.filter(pl.col("malformed").is_null())
        if usable.is_empty():
            counts = about["malformed"].value_counts().sort("malformed").iter_rows()
            reasons = ", ".join(f"{n} {reason}" for reason, n in counts)
            raise UserError(
                f"all {about.height} texts about items are malformed ({reasons}): look at the LLM, "
                "item_reasonings.template, item_reasonings.max_new_tokens and, for short ones, "
                "item_reasonings.min_words"
            )
        told, rows = opened.encode_unique(usable["reasoning"].to_list(), job.progress)
        added = np.tile(told[rows].mean(0), (len(vectors), 1))
        added[usable["item_index"].to_numpy()] = told[rows]
        vectors[1:] += added[1:]
    return vectors


def encode_sentences(shard: SentenceShard) -> np.ndarray:
    """The vectors of a shard's sentences, float32 [n, e]; UserError where a worker has another one.

    A folder or hub id may hold other weights on another machine, and vectors are kept under the
    digest of the run's own.
    """
    device = worker_device(shard.runtime)
    encoder = opened_last(
        (shard.encoder, shard.digest, device), lambda: _worker_encoder(shard, device)
    )
    return encoder.sentence_vectors(shard.sentences)


def _worker_encoder(shard: SentenceShard, device: str) -> "SentenceEncoder":
    from recalign.recommender.encoder import SentenceEncoder

    encoder = SentenceEncoder(shard.encoder, None, device)
    if encoder.digest != shard.digest:
        raise UserError(
            f"encoder {shard.encoder!r} has other files on worker {gethostname()} than where the "
            "run is: give both the same"
        )
    return encoder
