"""Stage rewards: what the recommender makes of every sample."""

import polars as pl

from recalign.artifacts.store import Artifact
from recalign.config import RewardsConfig
from recalign.oracle.inference import states_of
from recalign.oracle.storage import load_oracle
from recalign.recommender.encoder import SentenceEncoder
from recalign.recommender.examples import text_grid
from recalign.recommender.storage import load_recommender
from recalign.report.plots import distributions
from recalign.report.stage_page import picture
from recalign.rewards.score import score_rewards
from recalign.schemas import REASONINGS, REWARDS, read_table, write_table
from recalign.splits.phases import phase_of
from tasks.stage import Job, stage
from tasks.tables import read_tables


@stage(version=1)
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
    tables = read_tables(interactions, splits)
    phase = phase_of(tables.windows, "reward")
    texts = read_table(reasonings.path("reasonings.parquet"), REASONINGS)
    model, _ = load_oracle(oracle.folder, job.device)
    reader, _ = load_recommender(recommender.folder, job.device)
    encoder = SentenceEncoder(
        recommender.manifest.config["encoder"], job.cache / "sentences", job.device
    )
    vectors, rows = encoder.encode_unique(texts["reasoning"].to_list(), job.progress)
    text_rows, samples = text_grid(
        texts["user_index"].to_numpy(), texts["sample"].to_numpy(), rows, phase.users
    )
    seen, _ = tables.sequences.until(phase.users, phase.starts, int(phase.starts.max()))
    table = score_rewards(
        reader.scores,
        states_of(model, tables.sequences, phase.users, phase.starts),
        vectors,
        text_rows,
        samples,
        phase.users,
        phase.targets(tables.sequences),
        seen,
        config,
        n_items=tables.items.height,
        progress=job.progress,
    )
    write_table(table, job.draft.path("rewards.parquet"), REWARDS)
    job.draft.count(table.height)
    job.draft.tell({"mean_reward": table["reward"].mean()})


@rewards.shows
def rewards_shown(made: Artifact) -> list[str]:
    """Rewards of all samples, the greedy ones apart."""
    table = read_table(made.path("rewards.parquet"), REWARDS)
    kinds = {"sampled": table.filter(pl.col("sample") >= 0), "greedy": table.filter(sample=-1)}
    values = {name: rows["reward"].to_numpy() for name, rows in kinds.items()}
    return [picture(distributions(values, "Rewards", made.manifest.config["reward"]))]
