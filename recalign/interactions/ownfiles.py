"""The user's own interactions and items, with the columns that `FilesSource` names."""

from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from recalign.config import FilesSource
from recalign.errors import BadInputError
from recalign.interactions.cells import ending, read_cells
from recalign.interactions.columns import ids, refuse_first, typed_interactions, whole_numbers
from recalign.interactions.rawlines import cell_text, parse_json, records
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
    cells, origin = read_cells(files[0], fields, progress)
    interactions = typed_interactions(cells, origin)
    if "timestamp" in fields and cells.height > 1 and _constant(cells["timestamp"]):
        raise BadInputError(
            f"{files[0]}: every row has the same {source.timestamp_column}, so no order is known; "
            'set interactions.files.timestamp_column = "" if the rows stand in order of time'
        )
    if len(files) > 1:
        return RawTables(interactions, _read_items(source, files[1], progress))
    return RawTables(interactions, pl.DataFrame(schema=RAW_ITEMS), unknown_items="keep")


def _read_items(source: FilesSource, path: Path, progress: Progress) -> pl.DataFrame:
    """RAW_ITEMS; ids must be distinct, titles and attributes may be empty."""
    wanted = list(dict.fromkeys(c for c in [source.title_column, *source.attribute_columns] if c))
    if ending(path) == ".jsonl":
        cells, values = _json_items(path, source.item_column, wanted, progress)
        origin = Origin(path, {"item_id": source.item_column})
    else:
        fields = {"item_id": source.item_column} | {f"={name}": name for name in wanted}
        cells, origin = read_cells(path, fields, progress)
        values = {name: _values(cells[f"={name}"], origin) for name in wanted}
    item_ids = ids(cells["item_id"], cells["row"], origin, "item_id")
    twice, problem = ~item_ids.is_first_distinct(), "is listed twice; keep one row per item"
    refuse_first(twice, item_ids, cells["row"], origin, "item_id", problem)
    titles = values.get(source.title_column, [None] * len(item_ids))
    facets = [
        [attributes(SINGULAR.get(name, name), value) for value in values[name]]
        for name in source.attribute_columns
    ]
    return pl.DataFrame(
        {
            "item_id": item_ids,
            "title": [clean(cell_text(title) or "") or None for title in titles],
            "attributes": [
                list(chain.from_iterable(facet[place] for facet in facets))
                for place in range(len(item_ids))
            ],
        },
        schema=RAW_ITEMS,
    )


def _constant(cells: pl.Series) -> bool:
    return cells.head(1000).n_unique() == 1 and cells.n_unique() == 1


def _values(cells: pl.Series, origin: Origin) -> list[Any]:
    """The cells of a title or attribute; BadInputError for bytes, which are no text."""
    if cells.dtype == pl.Binary:
        origin.refuse(1, cells.name.removeprefix("="), "is of type Binary; it has to be text")
    return (whole_numbers(cells) if cells.dtype == pl.String else cells).to_list()


def _json_items(
    path: Path, id_column: str, wanted: list[str], progress: Progress
) -> tuple[pl.DataFrame, dict[str, list[Any]]]:
    """Row numbers and ids, and the wanted fields by name: lists may be nested to any depth."""
    rows: list[int] = []
    item_ids: list[str | None] = []
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    for row, record in records(path, parse_json, lambda line: True, progress):
        rows.append(row)
        item_ids.append(cell_text(record.get(id_column)))
        for name, cells in values.items():
            cells.append(record.get(name))
    if not rows:
        raise BadInputError(f"{path}: is empty; it needs one JSON object per line")
    absent = [name for name, cells in values.items() if all(cell is None for cell in cells)]
    if absent:
        raise BadInputError(
            f"{path}: no row has the field {', '.join(absent)}; name yours in interactions.files"
        )
    schema = {"row": pl.Int64, "item_id": pl.String}
    return pl.DataFrame({"row": rows, "item_id": item_ids}, schema=schema), values
