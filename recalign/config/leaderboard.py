"""What a leaderboard shows: the settings and runs of a sweep, or earlier runs."""

from pydantic import Field

from recalign.config.base import Config


class ShownSetting(Config):
    """One line of the leaderboard."""

    label: str
    """Its name."""
    values: list[str]
    """What it changes, as "stage.field=value"."""


class ShownCell(Config):
    """One run of a setting."""

    setting: str
    """Label of its setting."""
    seed: int
    """Number of its training seed."""
    headline: str = ""
    """The row of its results that the setting is about; empty: the usual one."""
    error: str = ""
    """Why it failed; empty: it did not, and cell i is input `cell_i`."""


class LeaderboardConfig(Config):
    """Runs that are set side by side."""

    title: str
    """What the page is called."""
    settings: list[ShownSetting]
    """In the order of the leaderboard; the first is what the others are compared with."""
    cells: list[ShownCell]
    """In any order; every setting has one or more that did not fail."""
    notes: list[str] = Field([])
    """What is to be known of its intervals."""
    n_resamples: int = 2000
    """Bootstrap resamples of the users."""
    seed: int = 0
    """Seed of the resamples."""
