"""What a page shows, as plain data: an opening, sections of tables and pictures, the stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from recalign.artifacts.manifest import Manifest
from recalign.report.wording import Tone

OVER_USERS = (
    "Intervals are percentile bootstrap intervals over users, paired by user; they say nothing "
    "about other seeds, data sets or language models."
)


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
    remarks: Sequence[str] = ()
    """What makes the data less than they seem, in sentences."""


@dataclass(frozen=True)
class StageRun:
    """One artifact, under the name that its run has in the flow."""

    label: str
    manifest: Manifest


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
    n_aligned: int | None = None
    """Pairs that were aligned on, none held out; prompts where all samples of one are read."""
    by_pairs: bool = True
    """Whether they are pairs."""


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
    """A figure, what stands small below it, and whether it is for better or worse."""

    text: str
    below: str = ""
    tone: Tone = ""
    order: float | None = None
    """What the cell is sorted by where it is not its text."""


@dataclass(frozen=True)
class Grid:
    """A table of the page; the first column holds the rows' names."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    words: Sequence[str] = ()
    """Names of the further columns that hold words, not figures."""
    marked: Sequence[int] = ()
    """Places of the rows that stand out."""
    stacks: bool = False
    """Whether each row becomes a block of its own on a phone; a wide table scrolls instead."""
    sorts: bool = False
    """Whether its headings sort it."""


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """One large figure with its name, and how far it is from what it is compared with."""

    name: str
    value: str
    change: str = ""
    bounds: str = ""
    """The 95 % interval of the change."""
    tone: Tone = ""
    meaning: str = ""
    """The figure's name in plain words."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    short: str
    """Its name in the navigation."""
    note: str = ""
    cards: Sequence[Card] = ()
    grids: Sequence[Grid] = ()
    figures: Sequence[Figure] = ()
    examples: Sequence[Example] = ()
    folded: Grid | None = None
    """A long table that opens on a click."""


@dataclass(frozen=True)
class Opening:
    """The first screen: what was run, what came out, and the picture of it."""

    lede: str
    verdict: str = ""
    """Built from the numbers: it claims a gain only where an interval shows one."""
    tone: Tone = ""
    picture: Figure | None = None
    cards: Sequence[Card] = ()
    compared: str = ""
    """Whose figures the cards show, and what they are compared with."""
    claims: Grid | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """The whole page, in its order; the stages come last."""

    title: str
    created: str
    """Time of the run, as it should be printed."""
    opening: Opening
    sections: Sequence[Section] = ()
    stages: Sequence[StageRun] = ()
    intervals: str = OVER_USERS
    """What its intervals are about."""

    @property
    def sorts(self) -> bool:
        """Whether it has a table that can be sorted, and needs the script for it."""
        return any(grid.sorts for part in self.sections for grid in part.grids)
