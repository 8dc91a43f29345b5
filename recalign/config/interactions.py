"""Where interactions come from and which of them are kept."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recalign.config.base import NOT_IDENTITY, Config, Seed, only_when


class SyntheticWorld(Config):
    """A world whose users' true preferences are known: genres, creators, eras and moods."""

    n_users: int = Field(1500, ge=10, le=10_000_000)
    """Number of users."""
    n_items: int = Field(1000, ge=50, le=10_000_000)
    """Number of items."""
    n_genres: int = Field(12, ge=2, le=40)
    """Number of genres; every item has one or two."""
    n_creators: int = Field(100, ge=2, le=2000)
    """Number of creators, each with a home genre and era."""
    n_eras: int = Field(6, ge=2, le=10)
    """Number of decades."""
    n_moods: int = Field(8, ge=2, le=12)
    """Number of moods."""
    noise: float = Field(0.6, gt=0, le=10)
    """Scale of the Gumbel noise in a user's choice, in units of utility."""
    drift_share: float = Field(0.5, ge=0, le=1)
    """Share of users whose tastes change once, at a random point of their history."""
    min_length: int = Field(42, ge=5, le=10_000)
    """Fewest interactions of a user."""
    max_length: int = Field(50, ge=5, le=10_000)
    """Most interactions of a user."""
    seed: Seed = 0
    """Seed of the whole world."""

    @model_validator(mode="after")
    def _lengths_in_order(self) -> "SyntheticWorld":
        if self.min_length > self.max_length:
            raise ValueError("min_length must not exceed max_length")
        return self


class AmazonSource(Config):
    """Which Amazon review set: the publisher's review and metadata files."""

    year: Literal["2014", "2018", "2023"] = "2014"
    """Edition of the data set, which decides the file format."""
    category: str = "Beauty"
    """Category as the publisher writes it in the file names."""


class GoodreadsSource(Config):
    """Which Goodreads set: one genre's files, or all of them."""

    genre: Literal[
        "all",
        "children",
        "comics_graphic",
        "fantasy_paranormal",
        "history_biography",
        "mystery_thriller_crime",
        "poetry",
        "romance",
        "young_adult",
    ] = "poetry"
    """Genre as the publisher writes it in the file names; all: 229 million interactions."""


class FilesSource(Config):
    """Your own interactions and items: CSV, JSONL or Parquet, by file ending."""

    heading = "Your own files"

    interactions: str = Field("", json_schema_extra=NOT_IDENTITY)
    """Path of the interactions file."""
    items: str = Field("", json_schema_extra=NOT_IDENTITY)
    """Path of the items file; empty: titles are the item ids."""
    user_column: str = Field("user_id", min_length=1)
    """Column of the user's id."""
    item_column: str = Field("item_id", min_length=1)
    """Column of the item's id, in both files."""
    timestamp_column: str = "timestamp"
    """Column of the time: a number since 1970, a date, or ISO 8601; empty: file order."""
    rating_column: str = ""
    """Column of the rating; empty: every row counts."""
    title_column: str = "title"
    """Column of the item's title."""
    attribute_columns: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    """Columns of item attributes (text, or lists of text) that go into the item's text."""

    @model_validator(mode="after")
    def _two_columns(self) -> "FilesSource":
        if self.user_column == self.item_column:
            raise ValueError(f"user_column and item_column are both {self.item_column!r}")
        return self


MovieLens = Literal[
    "ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small"
]


class InteractionsConfig(Config):
    """Ingest: source, and which rows are kept."""

    heading = "Data"
    first = ("source", "files", "k_core", "min_rating", "duplicates")

    source: Literal["synthetic", MovieLens, "amazon", "steam", "goodreads", "lastfm", "files"] = (
        "synthetic"
    )
    """Data set: the embedded synthetic world, a publisher's, or your own files."""
    raw_folder: str = Field("", json_schema_extra=NOT_IDENTITY)
    """Folder that holds the publisher's files; empty: they are downloaded."""
    sha256: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default=[], json_schema_extra=NOT_IDENTITY
    )
    """SHA-256 of downloads whose publisher gives no checksum (Amazon, Steam, Goodreads, LastFM)."""
    synthetic: SyntheticWorld = Field(
        SyntheticWorld(), json_schema_extra=only_when(source="synthetic")
    )
    """The embedded world."""
    amazon: AmazonSource = Field(AmazonSource(), json_schema_extra=only_when(source="amazon"))
    """The review set."""
    goodreads: GoodreadsSource = Field(
        GoodreadsSource(), json_schema_extra=only_when(source="goodreads")
    )
    """The genre."""
    files: FilesSource = Field(FilesSource(), json_schema_extra=only_when(source="files"))
    """Your own files."""
    min_rating: float = Field(0.0, ge=0, le=1e9)
    """Ratings (of LastFM: plays) below this are dropped; 0 keeps every row, also those without a
    rating."""
    duplicates: Literal["first", "last", "keep"] = "first"
    """Which of a user's repeated interactions with one item is kept."""
    k_core: int = Field(0, ge=0, le=1000)
    """Users and items with fewer interactions are dropped, repeated until none is left; 0: off."""

    @property
    def name(self) -> str:
        """The data set in a few words, for names of runs."""
        match self.source:
            case "amazon":
                return f"amazon {self.amazon.category} {self.amazon.year}"
            case "goodreads":
                return f"goodreads {self.goodreads.genre}"
            case "files":
                return PurePath(self.files.interactions).name or "files"
        return self.source

    @property
    def place(self) -> str:
        """The data set, and of your own files where they lie."""
        return self.files.interactions if self.source == "files" else self.name
