"""The pointer file of a series: named, shared by all machines, never begun anew over damage."""

import json
from datetime import UTC, datetime

import pytest

from recalign.artifacts.refreshes import REFRESHES
from recalign.artifacts.roots import open_root
from recalign.artifacts.series import SERIES, Generation, Series, SeriesRound, continued_with
from recalign.artifacts.store import Store
from recalign.errors import UserError

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def series(*validations, name="news"):
    rounds = [
        SeriesRound(number=number, validation=value, run="1", started=NOW, finished=NOW)
        for number, value in enumerate(validations)
    ]
    told = Generation(began=NOW, reason="the first", rounds=rounds, stages={})
    return Series(name=name, generations=[told])


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_what_is_written_is_read_wherever_the_root_is(where, tmp_path, monkeypatch, request):
    root = str(tmp_path / "root")
    if where == "s3":
        request.getfixturevalue("s3")
        root = "s3://bucket/root"
    for machine, made in (("a", series(0.3, 0.4)), ("b", series(0.3, 0.4, 0.5))):
        monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / machine))
        SERIES.write(open_root(root), made)
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "c"))
    SERIES.write(open_root(root), series(0.1, name="books"))
    assert SERIES.read(open_root(root), "news") == series(0.3, 0.4, 0.5)
    assert [one.name for one in SERIES.all(open_root(root))] == ["books", "news"]
    assert SERIES.read(open_root(root), "films").latest is None


def test_the_best_round_is_the_first_with_the_highest_validation_after_the_base():
    assert series(0.5, 0.2, 0.4, 0.4).latest.best.number == 2


def test_a_damaged_pointer_is_told_and_not_overwritten(tmp_path):
    store = Store(tmp_path)
    SERIES.write(store, series(0.3, 0.4))
    path = tmp_path / ".series" / "news.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(UserError, match=r"news\.json is damaged"):
        SERIES.read(store, "news")


def test_a_pointer_of_a_newer_version_is_told_and_nobody_is_asked_to_delete_it(tmp_path):
    store = Store(tmp_path)
    SERIES.write(store, series(0.3, 0.4))
    path = tmp_path / ".series" / "news.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_tomorrow": 1}))
    with pytest.raises(UserError, match=r"news\.json was written by a newer version of recalign$"):
        SERIES.read(store, "news")


@pytest.mark.parametrize("kind", [SERIES, REFRESHES])
def test_a_file_under_anothers_name_is_told(tmp_path, kind):
    store = Store(tmp_path)
    kind.write(store, kind.kind(name="news"))
    (tmp_path / kind.folder / "news.json").rename(tmp_path / kind.folder / "books.json")
    with pytest.raises(UserError, match=r"books\.json is damaged"):
        list(kind.all(store))


@pytest.mark.parametrize("name", ["", "../news", "News", "a" * 61, "-news", "news\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    for use in (SERIES.read, SERIES.lock):
        with pytest.raises(UserError, match="a name has up to 60"):
            use(Store(tmp_path), name)


def test_a_series_goes_on_with_another_source_only_if_that_is_named():
    begun = continued_with(series(0.3), "/data/ratings.csv", "")
    assert continued_with(begun, "/data/ratings.csv", "") == begun
    for allowed in ("", "ml-100k", "/data/ratings.csv"):
        with pytest.raises(UserError, match=r"news was built on /data/ratings\.csv, this run uses"):
            continued_with(begun, "synthetic", allowed)
    moved = continued_with(begun, "synthetic", "synthetic")
    assert (moved.source, moved.generations) == ("synthetic", begun.generations)
