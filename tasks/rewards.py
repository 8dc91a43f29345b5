"""Stage rewards: what the recommender makes of every sample."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from recalign.artifacts.artifact import Artifact
from recalign.artifacts.manifest import Reference
from recalign.artifacts.roots import open_root
from recalign.artifacts.shards import tables_in_shards
from recalign.config import RewardsConfig, Runtime
from recalign.lists import Lists
from recalign.progress import Progress, silent
from recalign.report.plots import distributions
from recalign.report.stage_page import picture
from recalign.report.wording import reward_name
from recalign.schemas import REASONINGS, REWARDS
from recalign.sequences import Before
from recalign.splits.phases import Phase, phase_of
from tasks.encoding import open_fitted_encoder
from tasks.engine.job import Job
from tasks.engine.spread import is_mapped, map_shards, opened_last, worker_device, worker_runtime
from tasks.engine.stage import stage
from tasks.kar_lists import ordered, read_lists
from tasks.tables import Tables, read_tables

if TYPE_CHECKING:
    from recalign.oracle.sequence_model import SequenceModel
    from recalign.rewards.score import SampledTexts

SHARD_USERS = 4096  # in one process; fewer would round rewards otherwise than the whole
ScoreTexts: TypeAlias = "Callable[[SampledTexts, Progress], pl.DataFrame]"
"""The REWARDS table of some users."""


@stage(version=2)
def rewards(
    job: Job,
    config: RewardsConfig,
    interactions: Artifact,
    splits: Artifact,
    oracle: Artifact,
    recommender: Artifact,
    reasonings: Artifact,
) -> None:
    """Rank the reward window with each reasoning; the better the ranking, the better the text."""
    from recalign.recommender.examples import text_grid  # torch: seconds
    from recalign.rewards.score import SampledTexts

    phase = phase_of(read_tables(interactions, splits).windows, "reward")
    written = REASONINGS.read(reasonings)
    encoder = open_fitted_encoder(job, recommender)
    vectors, rows = encoder.encode_unique(written["reasoning"].to_list(), job.progress)
    users = written["user_index"].to_numpy()
    places = np.flatnonzero(np.isin(phase.users, users))  # a part of a round, or all
    grid = text_grid(users, written["sample"].to_numpy(), rows, phase.users[places])
    texts = SampledTexts(places, vectors, *grid)
    artifacts = [interactions, splits, oracle, recommender]
    if is_mapped(job.runtime):
        table = _by_workers(job, config, [made.reference for made in artifacts], texts)
    else:
        table = _here(job, config, artifacts, texts)
    REWARDS.write(table, job.draft)
    job.draft.count(table.height)
    job.draft.tell({"mean_reward": table["reward"].mean()})


@rewards.shows
def rewards_shown(made: Artifact) -> list[str]:
    """Rewards of all samples, the greedy ones apart."""
    table = REWARDS.read(made)
    kinds = {"sampled": table.filter(pl.col("sample") >= 0), "greedy": table.filter(sample=-1)}
    values = {name: rows["reward"].to_numpy() for name, rows in kinds.items()}
    return [picture(distributions(values, "Rewards", reward_name(made.manifest.config)))]


def _scorer(config: RewardsConfig, artifacts: list[Artifact], device: str) -> ScoreTexts:
    """Everything that scoring needs but the texts, opened once."""
    from recalign.oracle.inference import states_of
    from recalign.oracle.storage import load_oracle
    from recalign.recommender.storage import load_recommender
    from recalign.rewards.score import RewardWindow, score_rewards

    interactions, splits, oracle, recommender = artifacts
    tables = read_tables(interactions, splits)
    phase = phase_of(tables.windows, "reward")
    model, _ = load_oracle(oracle.folder, device)
    if tables.protocol == "kar":
        lists = read_lists(splits, tables, phase)
        return _list_scorer(config, tables, phase, lists, model, recommender)
    reader, _ = load_recommender(recommender.folder, device)
    targets = phase.targets(tables.sequences)

    def score(texts: "SampledTexts", progress: Progress) -> pl.DataFrame:
        users, starts = phase.users[texts.places], phase.starts[texts.places]
        states = states_of(model, tables.sequences, users, starts)
        seen = Before(tables.sequences, users, starts)
        window = RewardWindow(users, states, targets[texts.places], seen, tables.items.height)
        return score_rewards(reader.scores, window, texts, config, progress)

    return score


def _list_scorer(
    config: RewardsConfig,
    tables: Tables,
    phase: Phase,
    lists: Lists,
    model: "SequenceModel",
    recommender: Artifact,
) -> ScoreTexts:
    """As `_scorer`, over the lists of the phase's users."""
    from recalign.recommender.list_reader import ListReader
    from recalign.recommender.storage import load_reader
    from recalign.rewards.list_rewards import score_lists

    reader, _ = load_reader(recommender.folder, model.item_matrix().device.type)

    def score(texts: "SampledTexts", progress: Progress) -> pl.DataFrame:
        places = texts.places
        own = Phase(phase.users[places], phase.starts[places], phase.ends[places])
        asked = lists.of_users(places)
        read = ListReader(reader, ordered(model, tables, own, asked)).read
        return score_lists(read, own.users, asked, texts, config, progress)

    return score


@dataclass(frozen=True)
class TextShard:
    """Texts, and the artifacts by which they are scored (see `_scorer`)."""

    runtime: Runtime
    config: RewardsConfig
    artifacts: list[Reference]
    texts: "SampledTexts"


def score_texts(shard: TextShard) -> pl.DataFrame:
    """The rewards of a shard's texts."""
    store, device = open_root(shard.runtime.root), worker_device(shard.runtime)
    opened = (tuple(shard.artifacts), shard.config, device)
    score = opened_last(
        opened, lambda: _scorer(shard.config, [store.open(one) for one in shard.artifacts], device)
    )
    return score(shard.texts, silent)


def _by_workers(
    job: Job, config: RewardsConfig, artifacts: list[Reference], texts: "SampledTexts"
) -> pl.DataFrame:
    """The rewards of all texts, in shards of `runtime.shard_users` users."""
    runtime = worker_runtime(job.runtime)

    def compute(parts: "list[SampledTexts]") -> Iterator[tuple[int, pl.DataFrame]]:
        return map_shards(
            job, score_texts, [TextShard(runtime, config, artifacts, p) for p in parts]
        )

    return _in_shards(job, texts, job.runtime.shard_users, compute)


def _here(
    job: Job, config: RewardsConfig, artifacts: list[Artifact], texts: "SampledTexts"
) -> pl.DataFrame:
    """The rewards of all texts, in shards of SHARD_USERS."""
    score, n_users = _scorer(config, artifacts, job.device), len(texts.places)
    several = n_users > SHARD_USERS  # one tells how far it is itself

    def compute(parts: "list[SampledTexts]") -> Iterator[tuple[int, pl.DataFrame]]:
        left = sum(len(part.places) for part in parts)
        for place, part in enumerate(parts):
            yield place, score(part, silent if several else job.progress)
            left -= len(part.places)
            if several:
                job.progress(n_users - left, n_users, "users")

    return _in_shards(job, texts, SHARD_USERS, compute)


def _in_shards(
    job: Job,
    texts: "SampledTexts",
    step: int,
    score: "Callable[[list[SampledTexts]], Iterable[tuple[int, pl.DataFrame]]]",
) -> pl.DataFrame:
    """REWARDS of all texts; `score` is given those of `step` users each that no kill has left."""
    parts = [texts.of(slice(n, n + step)) for n in range(0, len(texts.places), step)]
    # The draft's work folder belongs to one content of every input: the users tell shards apart.
    keys = [hashlib.sha256(part.places.tobytes()).hexdigest() for part in parts]

    def compute(missing: list[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for place, table in score([parts[number] for number in missing]):
            yield missing[place], table

    return pl.concat(tables_in_shards(keys, compute, job.draft.work, REWARDS))
