"""Amazon reviews of 2014, 2018 and 2023 as the UCSD group publishes them (McAuley et al.)."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from recalign.config import AmazonSource
from recalign.interactions.columns import typed_interactions
from recalign.interactions.rawlines import json_cells, parse_json, records
from recalign.interactions.rawtables import RAW_ITEMS, Origin, RawTables
from recalign.interactions.titles import Attribute, attributes, clean
from recalign.progress import Progress

_FIELDS_TO_2018 = {
    "user_id": "reviewerID",
    "item_id": "asin",
    "rating": "overall",
    "timestamp": "unixReviewTime",
}
_FIELDS_2023 = {
    "user_id": "user_id",
    "item_id": "parent_asin",  # variants of a product share it, and the metadata has only it
    "rating": "rating",
    "timestamp": "timestamp",
}


def read_amazon(source: AmazonSource, files: list[Path], progress: Progress) -> RawTables:
    """Reviews as interactions, metadata as items; `files` are the review and the metadata file.

    Metadata of items without a review is not parsed. Items that the metadata lack are kept (their
    id serves as title); a repeated metadata line (2018 has many) counts once, the first.
    Raises BadInputError for damaged files and broken lines.
    """
    reviews, metadata = files
    fields = _FIELDS_2023 if source.year == "2023" else _FIELDS_TO_2018
    parse = _loose if source.year == "2014" else parse_json
    cells = json_cells(reviews, fields, parse, progress)
    interactions = typed_interactions(cells, Origin(reviews, fields))
    wanted = set(interactions["item_id"].unique())
    items, repeated = _read_metadata(source, metadata, fields["item_id"], wanted, parse, progress)
    noted = {"repeated_metadata_lines": repeated} if repeated else {}
    return RawTables(interactions, items, unknown_items="keep", noted=noted)


def _loose(text: str) -> Any:
    """JSON, or a Python literal as in the metadata of 2014; nothing is ever evaluated."""
    try:
        return parse_json(text)
    except ValueError:
        return ast.literal_eval(text.strip())


def _read_metadata(
    source: AmazonSource,
    path: Path,
    id_field: str,
    wanted: set[str],
    parse: Callable[[str], Any],
    progress: Progress,
) -> tuple[pl.DataFrame, int]:
    """RAW_ITEMS of the wanted ids, and the number of repeated lines among them."""
    # The id is cut out of the line first: parsing all of 2014's literals takes minutes.
    cut = re.compile(rb"""['"]%s['"]: ?['"]([^'"]*)['"]""" % id_field.encode())

    def is_wanted(line: bytes) -> bool:
        found = cut.search(line)
        return found is None or found.group(1).decode(errors="replace") in wanted

    rows: dict[str, tuple[str | None, list[Attribute]]] = {}
    repeated = 0
    for _, record in records(path, parse, is_wanted, progress):
        item = str(record.get(id_field) or "").strip()
        if item in rows:
            repeated += 1
        else:
            rows[item] = (_title(record), _attributes(source, record))
    columns = {
        "item_id": list(rows),
        "title": [title for title, _ in rows.values()],
        "attributes": [facets for _, facets in rows.values()],
    }
    return pl.DataFrame(columns, schema=RAW_ITEMS), repeated


def _title(record: dict[str, Any]) -> str | None:
    """None for titles that are scraped page source (2018) rather than a title."""
    title = clean(str(record.get("title") or ""))
    return None if not title or "getTime(" in title else title


def _attributes(source: AmazonSource, record: dict[str, Any]) -> list[Attribute]:
    """Brand, then categories without the review set's own, which every item has."""
    details = record.get("details")
    brand = record.get("store") or record.get("brand")
    if source.year == "2023" and isinstance(details, dict):
        brand = details.get("Brand") or brand
    own = _plain(source.category)
    categories = [record.get("category"), record.get("categories")]
    facets = [a for a in attributes("category", categories) if _plain(a["value"]) != own]
    return attributes("brand", brand) + facets


def _plain(category: str) -> str:
    return category.replace("_", " ").replace("&", "and").lower()
