"""Amazon reviews of 2014, 2018 and 2023 as the UCSD group publishes them (McAuley et al.)."""

from pathlib import Path
from typing import Any

from recalign.config import AmazonSource
from recalign.interactions.catalogue import Description, item_table, wanted_records
from recalign.interactions.columns import typed_interactions
from recalign.interactions.rawlines import json_cells, parse_literal
from recalign.interactions.rawtables import Origin, RawTables
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
    cells = json_cells(reviews, fields, parse_literal, progress)
    interactions = typed_interactions(cells, Origin(reviews, fields))
    wanted = set(interactions["item_id"].unique())

    def described(record: dict[str, Any]) -> Description:
        return _title(record), _attributes(source, record)

    items, repeated = wanted_records(metadata, fields["item_id"], wanted, described, progress)
    noted = {"repeated_metadata_lines": repeated}
    return RawTables(interactions, item_table(items), unknown_items="keep", noted=noted)


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
