"""Records of a file of JSON or Python literals, one a line: the wanted ones, each once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from recalign.interactions.rawlines import parse_literal, records
from recalign.interactions.titles import Attribute
from recalign.progress import Progress
from recalign.schemas import ATTRIBUTES

Kept = TypeVar("Kept")
Description = tuple[str | None, list[Attribute]]
"""An item's title (None: it has none) and attributes."""


def wanted_records(
    path: Path,
    id_field: str,
    wanted: set[str],
    keep: Callable[[dict[str, Any]], Kept],
    progress: Progress,
) -> tuple[dict[str, Kept], int]:
    """What `keep` takes of the first record of every wanted id, and how many are repeated.

    Raises BadInputError at a broken line, unless its id can be read and is not wanted.
    """
    # The id is cut out of the line first: parsing all of a catalogue's literals takes minutes.
    cut = re.compile(rb"""['"]%s['"]: ?u?['"]([^'"]*)['"]""" % id_field.encode())

    def is_wanted(line: bytes) -> bool:
        found = cut.search(line)
        return found is None or found.group(1).decode(errors="replace") in wanted

    kept: dict[str, Kept] = {}
    repeated = 0
    for _, record in records(path, parse_literal, is_wanted, progress):
        item = str(record.get(id_field) or "").strip()
        if item in kept:
            repeated += 1
        elif item in wanted:
            kept[item] = keep(record)
    return kept, repeated


def item_table(described: dict[str, Description]) -> pl.DataFrame:
    """RAW_ITEMS: the lists are grouped from flat columns, as polars takes one dict at a time."""
    facets = [
        (place, facet["name"], facet["value"])
        for place, (_, several) in enumerate(described.values())
        for facet in several
    ]
    schema = {"place": pl.UInt32, "name": pl.String, "value": pl.String}
    lists = pl.DataFrame(facets, schema=schema, orient="row")
    lists = lists.group_by("place").agg(pl.struct("name", "value").alias("attributes"))
    titles = pl.Series([title for title, _ in described.values()], dtype=pl.String)
    items = pl.DataFrame({"item_id": pl.Series(list(described), dtype=pl.String), "title": titles})
    joined = items.with_row_index("place").join(
        lists, on="place", how="left", maintain_order="left"
    )
    none = pl.lit([], dtype=ATTRIBUTES)
    return joined.select("item_id", "title", pl.col("attributes").fill_null(none))
