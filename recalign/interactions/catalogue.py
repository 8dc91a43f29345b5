"""Records of a file of JSON or Python literals, one a line: the wanted ones, each once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from recalign.interactions.rawlines import parse_literal, records
from recalign.interactions.rawtables import RAW_ITEMS
from recalign.interactions.titles import Attribute
from recalign.progress import Progress

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
    """RAW_ITEMS."""
    columns = {
        "item_id": list(described),
        "title": [title for title, _ in described.values()],
        "attributes": [facets for _, facets in described.values()],
    }
    return pl.DataFrame(columns, schema=RAW_ITEMS)
