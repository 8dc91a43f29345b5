"""Steam: Python 2 literals, missing fields, repeated reviews, games known by two names."""

import gzip
from pathlib import Path

import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.ingest import Ingested, ingest
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

KITTY = (
    "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', "
    "u'page_order': 0, u'date': u'2017-12-17', u'text': u'Not a game.', u'early_access': False}\n"
)
REVIEWS = KITTY + KITTY + (
    r"{u'username': u'\ud83d\ude00 Bob', u'compensation': u'Product received for free', "
    "u'user_id': u'76561198061246905', u'product_id': u'328100', u'date': u'2016-01-09', "
    "u'text': u\"it's u'date': u'1999-01-01'\", u'hours': 13.2, u'early_access': True}\n"
    "{u'username': u'Bob', u'product_id': u'35140', u'date': u'2018-01-01', u'text': u''}\n"
    "{u'products': 3, u'product_id': u'35140', u'date': u'2018-01-02', u'text': u'nobody'}\n"
)  # fmt: skip
GAMES = (
    "{u'publisher': u'K', u'genres': [u'Action', u'Free to Play'], u'app_name': u'Lost Kitty', "
    "u'title': u'Lost Kitty &amp; Co', u'release_date': u'2018-01-04', u'tags': [u'Strategy'], "
    "u'price': 4.99, u'early_access': False, u'id': u'725280', u'developer': u'Kotoshiro'}\n"
    "{u'app_name': u'Only a Name', u'price': u'Free', u'id': u'328100', u'release_date': u'Soon'}\n"
    "{u'app_name': u'Only a Name', u'id': u'328100'}\n"
    "{u'url': u'http://store.steampowered.com/', u'price': 19.99}\n"
)
NAMES = ("steam_reviews.json.gz", "steam_games.json.gz")


def read(folder: Path, reviews: str = REVIEWS) -> tuple[RawTables, Ingested]:
    for name, text in zip(NAMES, (reviews, GAMES), strict=True):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    config = InteractionsConfig(source="steam", raw_folder=str(folder))
    raw = read_source(config, source_files(config, folder / "never written"))
    return raw, ingest(raw, config)


def test_reviews_are_literals_dated_by_day_and_what_names_no_user_is_counted(tmp_path):
    raw, tables = read(tmp_path)
    day = 86400
    assert raw.interactions.select("user_id", "item_id", "timestamp").rows() == [
        ("Chaos Syren", "725280", 17517 * day),
        ("Chaos Syren", "725280", 17517 * day),
        ("\U0001f600 Bob", "328100", 16809 * day),
        ("Bob", "35140", 17532 * day),
    ]
    assert raw.interactions["rating"].null_count() == 4
    assert raw.noted == {"incomplete_reviews": 1, "repeated_games": 1}
    assert tables.dropped == {"duplicate": 1}


def test_games_have_a_title_or_a_name_or_else_their_id(tmp_path):
    _, tables = read(tmp_path)
    titles = dict(tables.items.select("item_id", "title").iter_rows())
    assert titles == {"725280": "Lost Kitty & Co", "328100": "Only a Name", "35140": "35140"}
    facets = dict(tables.items.select("item_id", "attributes").iter_rows())
    assert [(a["name"], a["value"]) for a in facets["725280"]] == [
        ("genre", "Action"),
        ("genre", "Free to Play"),
        ("creator", "Kotoshiro"),
        ("era", "2010s"),
    ]
    assert facets["328100"] == []


def test_a_line_that_is_no_literal_is_refused_and_never_run(tmp_path):
    trap = tmp_path / "trap"
    with pytest.raises(BadInputError, match=r"steam_reviews\.json\.gz, row 6: the line is broken"):
        read(tmp_path, REVIEWS + f"{{u'username': open({str(trap)!r}, 'w')}}\n")
    assert not trap.exists()
