"""Every source has its files, its terms, its own reader and its own settings."""

from functools import partial
from typing import get_args

import pytest

from recalign.config import Config, InteractionsConfig
from recalign.config.base import only_when
from recalign.config.interactions import MovieLens
from recalign.interactions.movielens import read_movielens
from recalign.interactions.publishers import published

SOURCES = get_args(InteractionsConfig.model_fields["source"].annotation)
PUBLISHED = [source for source in SOURCES if source not in ("synthetic", "files")]


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_published_source_says_where_its_files_are_and_who_reads_them(source):
    found = published(InteractionsConfig(source=source))
    assert found.base.startswith("https://")
    assert found.downloads
    assert found.unpacked
    assert "use" in found.terms


def test_movielens_reader_reads_movielens_editions_and_nothing_else():
    readers = {one: published(InteractionsConfig(source=one)).read for one in PUBLISHED}
    of_editions = {
        source: read.args
        for source, read in readers.items()
        if isinstance(read, partial) and read.func is read_movielens
    }
    assert of_editions == {edition: (edition,) for edition in get_args(MovieLens)}


def test_a_source_that_nobody_reads_is_refused_and_not_taken_for_movielens():
    forgotten = InteractionsConfig().model_copy(update={"source": "yelp"})
    with pytest.raises(AssertionError, match="yelp"):
        published(forgotten)


def test_the_settings_of_a_source_count_for_that_source_alone():
    own = {name for name, value in InteractionsConfig() if isinstance(value, Config)}
    assert own < set(SOURCES)
    for name in own:
        assert InteractionsConfig.model_fields[name].json_schema_extra == only_when(source=name)
