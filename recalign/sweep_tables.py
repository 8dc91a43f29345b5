"""The tables of a sweep's leaderboard; the other tables stand in `schemas.py`."""

import polars as pl

from recalign.schemas import METRIC, Table

LEADERBOARD = Table(  # of a sweep: one setting, row and metric, over training seeds and users
    "leaderboard.parquet",
    setting=pl.String,
    row=pl.String,  # label of the row in RESULTS
    headline=pl.Boolean,  # whether it is the row that the setting is about
    **METRIC,
    mean=pl.Float64,
    low=pl.Float64,  # 95 % interval of the mean, for other users and other seeds
    high=pl.Float64,
    per_seed=pl.List(pl.Float64),  # the mean with each seed, in order of seeds
    base=pl.String,  # row of the same setting it is compared with; null: none
    difference=pl.Float64,  # paired by user and seed
    difference_low=pl.Float64,
    difference_high=pl.Float64,
    n_seeds=pl.Int64,
    n_users=pl.Int64,
)
COMPARISONS = Table(  # of a sweep: the comparisons that its page makes claims about
    "comparisons.parquet",
    question=pl.String,
    setting=pl.String,
    row=pl.String,
    base_setting=pl.String,
    base=pl.String,
    **METRIC,
    difference=pl.Float64,
    low=pl.Float64,  # 95 % interval, for other users and other seeds; not corrected
    high=pl.Float64,
    per_seed=pl.List(pl.Float64),  # the difference with each seed
    p=pl.Float64,  # two-sided, of no difference
    p_holm=pl.Float64,  # the same, corrected for the number of comparisons in this table
    detectable=pl.Float64,  # smallest effect found in 80 % of such sweeps, at 5 %; not corrected
    n_seeds=pl.Int64,
    n_users=pl.Int64,
)
CELLS = Table(  # of a sweep: one run
    "cells.parquet",
    setting=pl.String,
    seed=pl.Int64,
    run=pl.String,  # stage/fingerprint of its report; null: it failed
    validation=pl.Float64,  # what settings are chosen by
    cpu_seconds=pl.Float64,  # of all that the row stands on, whoever computed it
    own_cpu_seconds=pl.Float64,  # of what no other cell stands on
    tokens=pl.Int64,  # written by the LLM in all its reasonings
    pairs=pl.Int64,  # aligned on, over all rounds; none of held-out users
    error=pl.String,  # why it failed; null: it did not
)
