"""The user's own interactions and items, with the columns that `FilesSource` names."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from recalign.config import FilesSource
from recalign.errors import BadInputError
from recalign.interactions.cells import ending, read_cells
from recalign.interactions.columns import ids, refuse_first, typed_interactions
from recalign.interactions.rawlines import parse_json, records
from recalign.interactions.rawtables import RAW_ITEMS, Origin, RawTables
from recalign.interactions.titles import attributes, clean
from recalign.progress import Progress

SINGULAR = {
    "categories": "category",
    "genres": "genre",
    "creators": "creator",
    "eras": "era",
    "moods": "mood",
    "brands": "brand",
}
"""Attribute columns named in the plural become the facet's own name."""


def read_own_files(source: FilesSource, files: list[Path], progress: Progress) -> RawTables:
    """The table pair that `source` describes; without an items file every id is its own title.

    Raises BadInputError for an unknown ending, missing columns, text that is not UTF-8, broken
    lines, empty ids, unreadable times or ratings, and an item listed twice.
    """
    named = {
        "user_id": source.user_column,
        "item_id": source.item_column,
        "timestamp": source.timestamp_column,
        "rating": source.rating_column,
    }
    fields = {ours: theirs for ours, theirs in named.items() if theirs}
    interactions = typed_interactions(*read_cells(files[0], fields, progress))
    if len(files) > 1:
        return RawTables(interactions, _read_items(source, files[1], progress))
    return RawTables(interactions, pl.DataFrame(schema=RAW_ITEMS), unknown_items="keep")


def _read_items(source: FilesSource, path: Path, progress: Progress) -> pl.DataFrame:
    """RAW_ITEMS; ids must be distinct, titles and attributes may be empty."""
    wanted = list(dict.fromkeys(c for c in [source.title_column, *source.attribute_columns] if c))
    values: Iterable[dict[str, Any]]
    if ending(path) == ".jsonl":
        cells, values = _json_items(path, source.item_column, wanted, progress)
        origin = Origin(path, {"item_id": source.item_column})
    else:
        fields = {"item_id": source.item_column} | {f"={name}": name for name in wanted}
        cells, origin = read_cells(path, fields, progress)
        values = cells.select(pl.col(f"={name}").alias(name) for name in wanted).to_dicts()
    item_ids = ids(cells["item_id"], cells["row"], origin, "item_id")
    twice, problem = ~item_ids.is_first_distinct(), "is listed twice; keep one row per item"
    refuse_first(twice, item_ids, cells["row"], origin, "item_id", problem)
    titles, facets = [], []
    for record in values:
        titles.append(clean(str(record.get(source.title_column) or "")) or None)
        described = (attributes(SINGULAR.get(c, c), record[c]) for c in source.attribute_columns)
        facets.append(list(chain.from_iterable(described)))
    return pl.DataFrame(
        {"item_id": item_ids, "title": titles, "attributes": facets}, schema=RAW_ITEMS
    )


def _json_items(
    path: Path, id_column: str, wanted: list[str], progress: Progress
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Row numbers and ids, and the wanted fields as objects: lists may be nested to any depth."""
    rows: list[int] = []
    item_ids: list[str | None] = []
    values: list[dict[str, Any]] = []
    for row, record in records(path, parse_json, lambda line: True, progress):
        item = record.get(id_column)
        rows.append(row)
        item_ids.append(None if item is None else str(item))
        values.append({name: record.get(name) for name in wanted})
    if not rows:
        raise BadInputError(f"{path}: is empty; it needs one JSON object per line")
    absent = [name for name in wanted if all(record[name] is None for record in values)]
    if absent:
        raise BadInputError(
            f"{path}: no row has the field {', '.join(absent)}; name yours in interactions.files"
        )
    schema = {"row": pl.Int64, "item_id": pl.String}
    return pl.DataFrame({"row": rows, "item_id": item_ids}, schema=schema), values
