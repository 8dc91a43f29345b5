"""Last.fm of HetRec 2011: taggings are the events, plays the ratings."""

import zipfile
from pathlib import Path

import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.ingest import ingest
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

URL = "http://www.last.fm/music/X\thttp://userserve-ak.last.fm/serve/252/1.jpg"
FILES = {
    "user_taggedartists-timestamps.dat": (
        "userID\tartistID\ttagID\ttimestamp\r\n"
        "2\t52\t13\t1238536800000\r\n"
        "2\t52\t15\t1238536800000\r\n"
        "2\t51\t13\t1235862000000\r\n"
        "3\t999\t13\t1235862000000\r\n"
        "3\t52\t13\t-428720400000\r\n"
    ),
    "user_artists.dat": (
        "userID\tartistID\tweight\r\n2\t51\t13883\r\n2\t52\t11690\r\n3\t60\t7\r\n"
    ),
    "artists.dat": (
        f'id\tname\turl\tpictureURL\n51\tDuran "Duran" &amp; Co\t{URL}\n'
        f"52\tBj\u00f6rk\thttp://www.last.fm/music/Bj%C3%B6rk\t\n60\tAir\t{URL}\n"
    ),
}


def write(folder: Path, files: dict[str, str] = FILES) -> None:
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())


def read(folder: Path) -> RawTables:
    config = InteractionsConfig(source="lastfm", raw_folder=str(folder))
    return read_source(config, source_files(config, folder / "never written"))


def test_taggings_have_times_plays_are_ratings_and_untagged_plays_are_counted(tmp_path):
    write(tmp_path)
    raw = read(tmp_path)
    assert raw.interactions.select("user_id", "item_id", "timestamp", "rating").rows() == [
        ("2", "52", 1238536800, 11690.0),
        ("2", "52", 1238536800, 11690.0),
        ("2", "51", 1235862000, 13883.0),
        ("3", "999", 1235862000, None),
        ("3", "52", -428720400, None),
    ]
    assert raw.noted == {"plays_never_tagged": 1}
    assert raw.items["title"].to_list() == ['Duran "Duran" & Co', "Björk", "Air"]
    tables = ingest(raw, InteractionsConfig(k_core=0))
    assert tables.dropped == {"unknown_item": 1, "duplicate": 1}
    assert tables.interactions["timestamp"].to_list() == [1235862000, 1238536800, -428720400]


def test_the_zip_gives_the_same_tables(tmp_path):
    write(tmp_path)
    unpacked = read(tmp_path)
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "hetrec2011-lastfm-2k.zip", "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    zipped = read(tmp_path / "zipped")
    assert zipped.interactions.equals(unpacked.interactions)
    assert zipped.items.equals(unpacked.items)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("user_artists.dat", "userID\tartistID\n2\t51\n", "has no column weight"),
        (
            "user_taggedartists-timestamps.dat",
            "userID\tartistID\ttagID\ttimestamp\n2\t5\t1\tsoon\n",
            "row 2, field timestamp: 'soon'",
        ),
        ("artists.dat", "name\tid\n", "row 1: does not start with id and name"),
        ("artists.dat", "id\tname\n51\n", "row 2: has no name"),
    ],
)
def test_damaged_files_are_refused_by_name_row_and_field(tmp_path, name, text, message):
    write(tmp_path, FILES | {name: text})
    with pytest.raises(BadInputError) as refusal:
        read(tmp_path)
    assert f"{tmp_path / name}" in str(refusal.value)
    assert message in str(refusal.value)
