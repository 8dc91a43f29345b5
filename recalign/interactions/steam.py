"""Steam reviews and games as the UCSD group publishes them (Kang and McAuley 2018)."""

from pathlib import Path
from typing import Any

import polars as pl

from recalign.interactions.catalogue import Description, item_table, wanted_records
from recalign.interactions.columns import typed_interactions
from recalign.interactions.rawlines import json_cells, parse_literal
from recalign.interactions.rawtables import Origin, RawTables
from recalign.interactions.titles import attributes, clean, decade
from recalign.progress import Progress

FIELDS = {"user_id": "username", "item_id": "product_id", "timestamp": "date"}
"""The reviewer's name serves as id: few reviews carry a `user_id`."""


def read_steam(files: list[Path], progress: Progress) -> RawTables:
    """Reviews as interactions without a rating; `files` are the reviews and the games.

    Every line is a Python 2 literal, which is parsed and never evaluated. Dates are days: reviews
    of one day keep their order in the file. Reviews without a name, game or date are left out
    and counted. Games that the catalogue lacks are kept, with their id as title.
    Raises BadInputError for damaged files and broken lines.
    """
    reviews, games = files
    cells = json_cells(reviews, FIELDS, parse_literal, progress)
    blank = pl.any_horizontal(
        pl.col(field).is_null() | (pl.col(field).str.strip_chars() == "") for field in FIELDS
    )
    whole = cells.filter(~blank)
    interactions = typed_interactions(whole, Origin(reviews, FIELDS))
    wanted = set(interactions["item_id"].unique())
    described, repeated = wanted_records(games, "id", wanted, _described, progress)
    noted = {"incomplete_reviews": cells.height - whole.height, "repeated_games": repeated}
    return RawTables(interactions, item_table(described), unknown_items="keep", noted=noted)


def _described(game: dict[str, Any]) -> Description:
    """Genre, developer as creator, decade of release; some games have only an `app_name`."""
    title = clean(str(game.get("title") or game.get("app_name") or ""))
    era = decade(str(game.get("release_date") or ""))
    facets = attributes("genre", game.get("genres")) + attributes("creator", game.get("developer"))
    return title or None, facets + attributes("era", era)
