"""The columns of every table, checked whenever a stage reads or writes one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from recalign.errors import BadInputError
from recalign.parquet import read_parquet

Column = pl.DataType | type[pl.DataType]
Schema = Mapping[str, Column]


class Folder(Protocol):
    """An artifact, or the draft of one."""

    def path(self, name: str) -> Path: ...


class Table(dict[str, Column]):
    """The columns of a table, and the name of its file in an artifact's folder."""

    def __init__(self, file: str, /, **columns: Column) -> None:
        super().__init__(columns)
        self.file = file

    def read(self, made: Folder) -> pl.DataFrame:
        """The artifact's table; BadInputError when its columns are not these."""
        return read_table(made.path(self.file), self)

    def write(self, table: pl.DataFrame, draft: Folder) -> None:
        """Write the draft's table; BadInputError when its columns are not these."""
        write_table(table, draft.path(self.file), self)


CONTRASTS_FILE = "contrasts.parquet"  # RosePO: RESULTS of its claims, with the question in front
CURVE_FILE = "curve.parquet"  # how a stage's training went, by step or epoch
ATTRIBUTES = pl.List(pl.Struct({"name": pl.String, "value": pl.String}))

INTERACTIONS = Table(
    "interactions.parquet",
    user_index=pl.Int32,  # 0..n_users-1
    item_index=pl.Int32,  # 1..n_items; 0 is padding
    position=pl.Int32,  # 0-based place in the user's sequence
    timestamp=pl.Int64,  # seconds since 1970; ties keep the source's order
    rating=pl.Float32,  # null where the source has none
)
USERS = Table("users.parquet", user_index=pl.Int32, user_id=pl.String)
ITEMS = Table(
    "items.parquet",
    item_index=pl.Int32,
    item_id=pl.String,
    title=pl.String,
    text=pl.String,  # title and attributes, for the text encoder
    attributes=ATTRIBUTES,  # name is a facet: genre, creator, era, mood, category, ...
)
TRUTH = Table(  # synthetic world only; read by evaluation alone
    "truth.parquet",
    user_index=pl.Int32,
    from_position=pl.Int32,  # tastes hold from this position on (0, and the drift)
    name=pl.String,  # facet
    value=pl.String,
    weight=pl.Float32,  # utility an item gains by having this value
)
APPEAL = Table(  # synthetic world only: the popularity term of every user's utility
    "appeal.parquet",
    item_index=pl.Int32,
    appeal=pl.Float32,
)
WINDOWS = Table(  # positions; each window ends where the next starts
    "windows.parquet",
    user_index=pl.Int32,
    fit_start=pl.Int32,  # history is 0..fit_start-1
    reward_start=pl.Int32,
    valid_start=pl.Int32,
    test_start=pl.Int32,
    end=pl.Int32,
    prompted=pl.Boolean,  # false: too short, serves only to train the oracle
)
CANDIDATES = Table(
    "candidates.parquet",
    user_index=pl.Int32,
    kind=pl.String,  # uniform or popularity
    negatives=pl.List(pl.Int32),  # items the user never took
)
LISTS = Table(  # KAR's protocol: what is re-ranked
    "lists.parquet",
    user_index=pl.Int32,
    position=pl.Int32,  # of the first item of the list's block
    items=pl.List(pl.Int32),  # of the block and drawn, in order of item_index
    positive=pl.List(pl.Boolean),  # of the block, and liked
)
PROMPTS = Table(
    "prompts.parquet",
    user_index=pl.Int32,
    cutoff=pl.Int32,  # only positions below this may be seen
    first_position=pl.Int32,  # of the first item shown
    items=pl.List(pl.Int32),  # shown, in order of time
    prompt=pl.String,
)
REASONINGS = Table(
    "reasonings.parquet",
    user_index=pl.Int32,
    sample=pl.Int16,  # 0..N-1; -1 is the greedy one
    reasoning=pl.String,
    n_tokens=pl.Int32,
    malformed=pl.String,  # why the text cannot be used; null: it can
)
ITEM_REASONINGS = Table(
    "item_reasonings.parquet",
    item_index=pl.Int32,
    reasoning=pl.String,
    n_tokens=pl.Int32,
    malformed=pl.String,  # why the text cannot be used; null: it can
)
REWARDS = Table(
    "rewards.parquet",
    user_index=pl.Int32,
    sample=pl.Int16,
    ndcg_at_k=pl.Float64,
    ndcg_full=pl.Float64,
    log_prob=pl.Float64,  # mean log-probability of the targets, nats
    reward=pl.Float64,  # the one that the settings choose
)
COMPLETIONS = Table(  # what alignment learns from: one prompt and what may follow it
    "completions.parquet",
    user_index=pl.Int32,
    position=pl.Int32,  # of the chosen item; null where completions are reasonings
    prompt=pl.String,
    completions=pl.List(pl.String),  # every usable sample, or the chosen title and the rejected
    samples=pl.List(pl.Int16),  # number of each; null where none was sampled
    rewards=pl.List(pl.Float64),  # of each; null where none was given
    chosen=pl.Int16,  # its place among the completions
    rejected=pl.List(pl.Int16),  # their places
    smoothing=pl.List(pl.Float64),  # eps of each rejected: P(it is really preferred)
)
REJECTIONS = Table(  # RosePO
    "rejections.parquet",
    user_index=pl.Int32,
    position=pl.Int32,  # of the chosen item; only earlier positions are shown
    first_position=pl.Int32,  # of the first item shown
    history=pl.List(pl.Int32),  # items shown, in order of time
    candidates=pl.List(pl.Int32),  # titles to pick from; empty in the history format
    prompt=pl.String,
    chosen=pl.Int32,
    chosen_score=pl.Float64,  # the SFT model's log-probability of it; null: not asked
    rejected=pl.List(pl.Int32),  # K items
    strategies=pl.List(pl.String),  # where each comes from
    scores=pl.List(pl.Float64),  # log-probability, similarity, popularity count; 0: random
    seed=pl.Int64,  # of the row's random stream
)
METRIC: Schema = {  # see recalign/metric_columns.py
    "lists": pl.Categorical,  # what was ranked: catalogue, or lists drawn uniform or by popularity
    "measure": pl.Categorical,  # NDCG, HR, ...
    "k": pl.Int32,  # cut-off; null: the measure has none
}
PER_USER = Table(  # one metric of one user
    "per_user.parquet",
    user_index=pl.Int32,
    **METRIC,
    value=pl.Float64,  # mean over samples or next items; null: defined for none of them
)
ROWS_PER_USER = Table(PER_USER.file, row=pl.Categorical, **PER_USER)  # row: its label in RESULTS
RECOMMENDATIONS = Table(  # RosePO: one case each
    "recommendations.parquet",
    user_index=pl.Int32,
    position=pl.Int32,  # of the target
    target=pl.Int32,
    recommended=pl.List(pl.Int32),  # from the whole catalogue, best first; empty: not ranked
    answer=pl.String,  # free answer of an LLM; null: none asked
)
SERVING = Table(  # for every user asked for: k rows, or one that says why there are none
    "serving.parquet",
    user_id=pl.String,
    rank=pl.Int32,  # from 1
    item_id=pl.String,
    title=pl.String,
    score=pl.Float32,  # comparable within a user only
    reasoning=pl.String,  # what the policy writes about the user, at rank 1; null: not usable
    why_none=pl.String,  # null where there are recommendations
)
UNKNOWN_ITEMS = Table(  # in newer interactions, but not in the catalogue of the run
    "unknown_items.parquet",
    item_id=pl.String,
    n_interactions=pl.Int64,
)
ITEMLESS_USERS = Table("itemless_users.parquet", user_id=pl.String)  # took only unknown items
RESULTS = Table(
    "results.parquet",
    row=pl.String,  # label of the row, for people
    policy=pl.String,  # none, shuffled, mixed .., a reasoner, base, aligned, sft or continued
    decoding=pl.String,  # none, greedy or sampled
    recommender=pl.String,  # one of texts/rows.py, popularity, sasrec, or llm: the policy itself
    strategy=pl.String,  # where rejected items come from; null: not aligned on titles
    estimator=pl.String,  # smoothing of the pairs; null: not aligned on titles
    **METRIC,
    mean=pl.Float64,
    low=pl.Float64,  # 95 % interval of the mean; see `metric_columns.told_intervals`
    high=pl.Float64,
    base=pl.String,  # row it is compared with; null: none, and the columns below are null
    difference=pl.Float64,  # mean minus the base row's mean, paired by user
    difference_low=pl.Float64,
    difference_high=pl.Float64,
    relative=pl.Float64,  # difference / the base row's mean; null where that is 0
    n_users=pl.Int64,
)
SEGMENTS = Table(  # RESULTS in one metric, among the users of each segment
    "segments.parquet",
    kind=pl.String,  # what users are cut by, see evaluation/segments.py
    segment=pl.String,
    **RESULTS,
)
BUDGETS = Table(  # what the policy of each row was trained on; null: not beyond SFT
    "budgets.parquet",
    row=pl.String,
    pairs=pl.Int64,  # chosen items, those of held-out users aside
    held_out_pairs=pl.Int64,
    planned_steps=pl.Int64,  # optimiser steps of all epochs
    steps=pl.Int64,  # made before the early stop
    best_step=pl.Int64,  # whose weights are kept
)
HINDSIGHT = Table(  # RosePO: eps against what users took after the pair, a line per smoothing
    "hindsight.parquet",
    pairs=pl.String,  # strategy and estimator
    rejected=pl.Int64,  # rejected items
    n_users=pl.Int64,
    taken_later=pl.Float64,  # share of them that their users took later
    auc=pl.Float64,  # of eps for "taken later"; null, like its interval: all or none were
    auc_low=pl.Float64,  # 95 % interval over users
    auc_high=pl.Float64,
    correlation=pl.Float64,  # of eps and "taken later" (Pearson's, point-biserial)
    correlation_low=pl.Float64,
    correlation_high=pl.Float64,
    auc_popularity=pl.Float64,  # what the items' popularity in the history windows reaches
)
RECOMMENDED = Table(  # KAR's protocol has several lists a user, and means are over lists there
    "recommended.parquet",
    row=pl.String,
    coverage=pl.Float64,  # share of the catalogue that anyone is recommended
    gini=pl.Float64,  # of how often items are recommended: 0 all alike, 1 a single one
    average_popularity=pl.Float64,  # interactions in the history windows, mean over users' lists
    long_tail_share=pl.Float64,  # share outside the most popular fifth, mean over users' lists
)
TEXTS = Table(
    "texts.parquet",
    texts=pl.String,  # whose: base greedy, aligned sampled, ...
    n_users=pl.Int64,
    n_texts=pl.Int64,
    words=pl.Float64,  # mean length
    tokens=pl.Float64,  # mean length
    distinct=pl.Float64,  # different texts / texts
    distinct_within_user=pl.Float64,  # the same for each user's samples, mean over users
    valid=pl.Float64,  # share of texts that are not malformed
)
FACETS = Table(  # synthetic world only: reasonings against the truth
    "facets.parquet",
    texts=pl.String,
    facet=pl.String,  # "all" pools the facets
    stated=pl.Float64,  # values stated per text
    precision=pl.Float64,  # share of the stated values that the user likes; null: none stated
    recall=pl.Float64,  # share of the liked values that are stated
    n_users=pl.Int64,
)


def check_table(table: pl.DataFrame, schema: Schema, name: str) -> pl.DataFrame:
    """`table` with exactly the columns of `schema`; BadInputError names what differs."""
    missing = [column for column in schema if column not in table.columns]
    if missing:
        raise BadInputError(f"{name}: column(s) {', '.join(missing)} missing")
    wrong = [
        f"{column} is {table.schema[column]}, not {kind}"
        for column, kind in schema.items()
        if table.schema[column] != kind
    ]
    if wrong:
        raise BadInputError(f"{name}: {'; '.join(wrong)}")
    return table.select(list(schema))


def read_table(path: Path, schema: Schema) -> pl.DataFrame:
    """Read a Parquet table and check its columns."""
    return check_table(read_parquet(path), schema, str(path))


def write_table(table: pl.DataFrame, path: Path, schema: Schema) -> None:
    """Check and write a Parquet table.

    Higher levels of zstd cost half as much again and save 1 %; groups of a million rows are a
    tenth smaller and quicker than polars' own; statistics of columns are for readers that filter.
    """
    check_table(table, schema, str(path)).write_parquet(
        path, compression="zstd", compression_level=1, row_group_size=1 << 20, statistics=False
    )
