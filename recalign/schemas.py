"""The columns of every table, checked whenever a stage reads or writes one."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recalign.errors import BadInputError

ATTRIBUTES = pl.List(pl.Struct({"name": pl.String, "value": pl.String}))

INTERACTIONS = {
    "user_index": pl.Int32,  # 0..n_users-1
    "item_index": pl.Int32,  # 1..n_items; 0 is padding
    "position": pl.Int32,  # 0-based place in the user's sequence
    "timestamp": pl.Int64,  # seconds since 1970; ties keep the source's order
    "rating": pl.Float32,  # null where the source has none
}
USERS = {"user_index": pl.Int32, "user_id": pl.String}
ITEMS = {
    "item_index": pl.Int32,
    "item_id": pl.String,
    "title": pl.String,
    "text": pl.String,  # title and attributes, for the text encoder
    "attributes": ATTRIBUTES,  # name is a facet: genre, creator, era, mood, category, ...
}
TRUTH = {  # synthetic world only; read by evaluation alone
    "user_index": pl.Int32,
    "from_position": pl.Int32,  # tastes hold from this position on (0, and the drift)
    "name": pl.String,  # facet
    "value": pl.String,
    "weight": pl.Float32,  # utility an item gains by having this value
}
WINDOWS = {  # positions; each window ends where the next starts
    "user_index": pl.Int32,
    "fit_start": pl.Int32,  # history is 0..fit_start-1
    "reward_start": pl.Int32,
    "valid_start": pl.Int32,
    "test_start": pl.Int32,
    "end": pl.Int32,
    "prompted": pl.Boolean,  # false: too short, serves only to train the oracle
}
CANDIDATES = {
    "user_index": pl.Int32,
    "kind": pl.String,  # uniform or popularity
    "negatives": pl.List(pl.Int32),  # items the user never took
}
PROMPTS = {
    "user_index": pl.Int32,
    "cutoff": pl.Int32,  # only positions below this may be seen
    "first_position": pl.Int32,  # of the first item shown
    "items": pl.List(pl.Int32),  # shown, in order of time
    "prompt": pl.String,
}
REASONINGS = {
    "user_index": pl.Int32,
    "sample": pl.Int16,  # 0..N-1; -1 is the greedy one
    "reasoning": pl.String,
    "n_tokens": pl.Int32,
    "malformed": pl.String,  # why the text cannot be used; null: it can
}
REWARDS = {
    "user_index": pl.Int32,
    "sample": pl.Int16,
    "ndcg_at_k": pl.Float64,
    "ndcg_full": pl.Float64,
    "log_prob": pl.Float64,  # mean log-probability of the targets, nats
    "reward": pl.Float64,  # the chosen one of the three
}
PAIRS = {
    "user_index": pl.Int32,
    "prompt": pl.String,
    "chosen": pl.String,
    "rejected": pl.String,
    "chosen_sample": pl.Int16,
    "rejected_sample": pl.Int16,
    "chosen_reward": pl.Float64,
    "rejected_reward": pl.Float64,
    "margin": pl.Float64,  # chosen_reward - rejected_reward, always above 0
}

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


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
    return check_table(pl.read_parquet(path), schema, str(path))


def write_table(table: pl.DataFrame, path: Path, schema: Schema) -> None:
    """Check and write a Parquet table."""
    check_table(table, schema, str(path)).write_parquet(path, compression="zstd")
