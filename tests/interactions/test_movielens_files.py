import zipfile
from pathlib import Path

import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

RATINGS_1M = b"1::1193::5::978300760\n1::2918::4::978302109\n2::2918::3::978298413\n"
MOVIES_1M = (
    b"1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
    b"2918::Mis\xe9rables, Les: Part :II (1995)::Drama|Musical\n"
)
DATA_100K = b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n"


def line_100k(movie: str, title: str, *genres: int) -> str:
    flags = "|".join("1" if place in genres else "0" for place in range(19))
    return f"{movie}|{title}|24-Jan-1997||http://imdb|{flags}\n"


ITEM_100K = (line_100k("242", "Kolya (1996)", 5) + line_100k("302", "unknown", 0)).encode()
FILES = {
    "ml-1m": {"ratings.dat": RATINGS_1M, "movies.dat": MOVIES_1M},
    "ml-100k": {"u.data": DATA_100K, "u.item": ITEM_100K},
}


def unpack(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read(source: str, folder: Path) -> RawTables:
    config = InteractionsConfig.model_validate({"source": source, "raw_folder": str(folder)})
    return read_source(config, source_files(config, folder / "never written"))


def test_1m_ratings_split_at_double_colons_and_titles_keep_single_ones(tmp_path):
    unpack(tmp_path, FILES["ml-1m"])
    raw = read("ml-1m", tmp_path)
    assert raw.interactions.rows() == [
        ("1", "1193", 978300760, 5.0, 1),
        ("1", "2918", 978302109, 4.0, 2),
        ("2", "2918", 978298413, 3.0, 3),
    ]
    assert raw.items["title"].to_list()[1] == "Misérables, Les: Part :II (1995)"
    assert [(a["name"], a["value"]) for a in raw.items["attributes"].to_list()[1]] == [
        ("genre", "Drama"),
        ("genre", "Musical"),
        ("era", "1990s"),
    ]


def test_100k_flags_are_genres_and_the_unknown_film_has_no_attribute(tmp_path):
    unpack(tmp_path, FILES["ml-100k"])
    raw = read("ml-100k", tmp_path)
    assert raw.interactions["timestamp"].to_list() == [881250949, 891717742]
    assert raw.items["attributes"].to_list() == [
        [{"name": "genre", "value": "Comedy"}, {"name": "era", "value": "1990s"}],
        [],
    ]


@pytest.mark.parametrize("source", ["ml-1m", "ml-100k"])
def test_folder_its_parent_and_the_zip_give_the_same_tables(tmp_path, source):
    unpack(tmp_path / "flat", FILES[source])
    unpack(tmp_path / "parent" / source, FILES[source])
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / f"{source}.zip", "w") as archive:
        for name, content in FILES[source].items():
            archive.writestr(f"{source}/{name}", content)
    flat = read(source, tmp_path / "flat")
    for place in ("parent", "zipped"):
        other = read(source, tmp_path / place)
        assert other.interactions.equals(flat.interactions)
        assert other.items.equals(flat.items)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.dat", b"", "ratings.dat: is empty"),
        ("ratings.dat", RATINGS_1M + b"2::10", "row 4, field 4 (timestamp): is empty"),
        ("ratings.dat", RATINGS_1M + b"2::10::4::5::6\n", "row 4: has 5 fields instead of 4"),
        ("ratings.dat", RATINGS_1M + b"2::10::x::5\n", "row 4, field 3 (rating): 'x'"),
        ("ratings.dat", RATINGS_1M + b"2::10::::5\n", "row 4, field 3 (rating): is empty"),
        ("ratings.dat", RATINGS_1M + b"2::::3::5\n", "row 4, field 2 (item_id): is empty"),
        ("movies.dat", MOVIES_1M + b"1193::Again (1975)::War\n", "'1193' occurs twice"),
        ("movies.dat", MOVIES_1M + b"77::Half a li", "row 3: has 2 fields instead of 3"),
    ],
)
def test_a_damaged_movielens_file_is_refused_by_row_and_field(tmp_path, name, content, message):
    unpack(tmp_path, FILES["ml-1m"] | {name: content})
    with pytest.raises(BadInputError) as refusal:
        read("ml-1m", tmp_path)
    assert str(tmp_path / name) in str(refusal.value)
    assert message in str(refusal.value)


def test_a_damaged_zip_is_refused(tmp_path):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", RATINGS_1M * 50)
    with pytest.raises(BadInputError, match=r"holds no movies\.dat"):
        read("ml-1m", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match="cut short"):
        read("ml-1m", tmp_path)
    path.write_bytes(whole.replace(b"1::1193", b"1::1194", 1))
    with pytest.raises(BadInputError, match="damaged"):
        read("ml-1m", tmp_path)


def test_a_raw_folder_without_the_files_is_refused_with_their_names(tmp_path):
    with pytest.raises(BadInputError, match=r"neither ml-1m\.zip nor ratings\.dat and movies\.dat"):
        read("ml-1m", tmp_path)
    with pytest.raises(BadInputError, match="no such folder"):
        read("ml-1m", tmp_path / "absent")
