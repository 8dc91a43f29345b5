"""A source that grows, and the smallest method over it: as settings, and as a user's preset."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from recalign.config import DPO4RecConfig, SyntheticWorld
from recalign.world.synthesise import synthesise
from tests.tasks.tiny_run import SMALLEST

WORLD = SyntheticWorld(
    n_users=60, n_items=120, n_genres=6, n_creators=10, n_eras=3, n_moods=4,
    min_length=16, max_length=20,
)  # fmt: skip
ATTRIBUTES = ["genre", "creator", "era", "mood"]


def write_source(folder: Path) -> None:
    """A small world's items and interactions as a user's own files."""
    world = synthesise(WORLD)
    world.interactions.drop("row", "rating").write_csv(folder / "ratings.csv")
    values = pl.element().struct
    columns = {
        name: pl.col("attributes").list.eval(
            values.field("value").filter(values.field("name") == name)
        )
        for name in ATTRIBUTES
    }
    world.items.select("item_id", "title", **columns).write_ndjson(folder / "items.jsonl")


def grow(folder: Path) -> None:
    """One more interaction of the first user, with an item new to him."""
    path = folder / "ratings.csv"
    table = pl.read_csv(path)
    user, last = table["user_id"][0], max(table["timestamp"].to_list())
    seen = set(table.filter(pl.col("user_id") == user)["item_id"])
    new = next(item for item in table["item_id"] if item not in seen)
    with path.open("a") as file:
        file.write(f"{user},{new},{last + 1}\n")


def config_for(folder: Path) -> DPO4RecConfig:
    """The method at its smallest over these files, for three rounds at most."""
    return DPO4RecConfig.model_validate(settings_for(folder))


def write_preset(folder: Path, preset: Path) -> None:
    """The same as a user's own TOML file; a value in JSON is one in TOML too."""
    preset.write_text("\n".join(["# News, at its smallest.", *_lines(settings_for(folder))]))


def _lines(settings: dict[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name} = {json.dumps(value)}")
    return lines


def settings_for(folder: Path) -> dict[str, Any]:
    """What differs from the method's usual settings."""
    return SMALLEST | {
        "interactions": {
            "source": "files",
            "files": {
                "interactions": str(folder / "ratings.csv"),
                "items": str(folder / "items.jsonl"),
                "attribute_columns": ATTRIBUTES,
            },
        },
        "rounds": {"n": 3, "patience": 4},  # whatever validation says of so small a world
        "report": {"n_examples": 1},
    }
