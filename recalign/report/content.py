"""Everything a report page can show, as plain data; what is missing is left out of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recalign.metric_columns import NDCG_AT_10, Metric


@dataclass(frozen=True)
class DataSet:
    """What went in; `windows` is the WINDOWS table."""

    name: str
    n_users: int
    n_items: int
    n_interactions: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out at ingest and splitting, by reason."""
    windows: pl.DataFrame | None = None
    n_test_users: int | None = None
    """Users whose test window is evaluated."""


@dataclass(frozen=True)
class StageRun:
    """One artifact: what its manifest says."""

    stage: str
    label: str
    fingerprint: str
    version: int
    inputs: Mapping[str, str]
    """Fingerprints of upstream artifacts, by the name the stage knows them by."""
    created: str
    seconds: float
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    device: str = ""
    peak_memory_mb: float = 0.0
    git_commit: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One repetition; number 0 is the base policy, which has only its validation."""

    number: int
    valid: float | None = None
    """Validation NDCG of the policy after this round."""
    kept: bool = False
    curve: pl.DataFrame | None = None
    """Alignment log: `step` and any columns of `plots.ALIGNMENT_PANELS`; null: not measured."""
    rewards: np.ndarray | None = None
    """Reward of every sample in the round."""
    margins: np.ndarray | None = None
    """Margin of every pair of the round."""
    n_users: int | None = None
    n_pairs: int | None = None
    tie_rate: float | None = None
    """Share of users whose samples all earn the same reward."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Users without a pair, by reason."""


@dataclass(frozen=True)
class Example:
    """One user: titles of the history shown to the policy, and what two policies wrote."""

    user: str
    history: Sequence[str]
    base: str
    aligned: str
    targets: Sequence[str] = ()
    """Titles of the held-out items."""
    base_ndcg: float | None = None
    aligned_ndcg: float | None = None
    truth: str = ""
    """What the user truly likes, where it is known."""


@dataclass(frozen=True)
class Cell:
    """A figure with what stands small below it, and a colour where it means something."""

    text: str
    below: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of the page; the first column holds the rows' names."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page that one method alone has."""

    title: str
    short: str
    """Its name in the navigation."""
    note: str = ""
    figures: Sequence[Figure] = ()
    grids: Sequence[Grid] = ()


@dataclass(frozen=True)
class ReportContent:
    """The page; tables have the schemas of `recalign.schemas`."""

    title: str
    created: str
    """Time of the run, as it should be printed."""
    results: pl.DataFrame | None = None
    """RESULTS of the test."""
    primary: Metric = NDCG_AT_10
    """Metric of the summary and of the forest plot, named before the results are seen; where it
    was not measured, full-depth NDCG."""
    data: DataSet | None = None
    stages: Sequence[StageRun] = ()
    oracle_curve: pl.DataFrame | None = None
    """Columns epoch, loss, valid_ndcg_at_10."""
    bootstrap_curve: pl.DataFrame | None = None
    """Columns step and loss, and held_out_loss if measured (nats per token)."""
    rounds: Sequence[Round] = ()
    texts: pl.DataFrame | None = None
    """TEXTS, one row per set of reasonings."""
    facets: pl.DataFrame | None = None
    """FACETS, on the synthetic world."""
    malformed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Malformed texts by reason, for each set of reasonings."""
    recommended: pl.DataFrame | None = None
    """RECOMMENDED: what the heads of the lists hold."""
    examples: Sequence[Example] = ()
    sections: Sequence[Section] = ()
    """What a method shows beyond the parts above."""
    sentences: Sequence[str] | None = None
    """The summary; None: DPO4Rec's own, made from the tables."""
