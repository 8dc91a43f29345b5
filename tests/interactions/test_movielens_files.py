import zipfile
from pathlib import Path

import pytest

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions import rawlines
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files

CSV_EDITIONS = ("ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small")
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
RATINGS_CSV = b"userId,movieId,rating,timestamp\r\n1,2,3.5,1112486027\r\n2,4,0.5,1112484676\r\n"
MOVIES_CSV = (
    'movieId,title,genres\r\n2,"American President, The (1995)",Comedy|Drama|Romance\r\n'
    '4,"""Great Performances"" Caf\u00e9 (1998)",(no genres listed)\r\n'
).encode()
FILES = {
    "ml-10m": {
        "ratings.dat": b"1::122::5::838985046\n1::185::3.5::838983525\n",
        "movies.dat": (
            "122::Boomerang (1992)::Comedy|Romance\n"
            "185::Mis\u00e9rables, Les (1995)::(no genres listed)\n"
        ).encode(),
    },
    **{name: {"ratings.csv": RATINGS_CSV, "movies.csv": MOVIES_CSV} for name in CSV_EDITIONS},
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
        (1, 1193, 978300760, 5.0),
        (1, 2918, 978302109, 4.0),
        (2, 2918, 978298413, 3.0),
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


def test_10m_has_half_stars_and_titles_in_utf8(tmp_path):
    unpack(tmp_path, FILES["ml-10m"])
    raw = read("ml-10m", tmp_path)
    assert raw.interactions["rating"].to_list() == [5.0, 3.5]
    assert raw.items["title"].to_list() == ["Boomerang (1992)", "Misérables, Les (1995)"]
    genres = [[a["value"] for a in facets] for facets in raw.items["attributes"].to_list()]
    assert genres == [["Comedy", "Romance", "1990s"], ["1990s"]]


@pytest.mark.parametrize("source", CSV_EDITIONS)
def test_csv_editions_have_windows_line_ends_quoted_titles_and_films_without_genre(
    tmp_path, source
):
    unpack(tmp_path, FILES[source])
    raw = read(source, tmp_path)
    assert raw.interactions.rows() == [(1, 2, 1112486027, 3.5), (2, 4, 1112484676, 0.5)]
    titles = ["American President, The (1995)", '"Great Performances" Café (1998)']
    assert raw.items["title"].to_list() == titles
    genres = [[a["value"] for a in facets] for facets in raw.items["attributes"].to_list()]
    assert genres == [["Comedy", "Drama", "Romance", "1990s"], ["1990s"]]


def test_odd_lines_are_read_as_text_and_change_nothing_else(tmp_path):
    lines = RATINGS_1M.replace(b"1::2918::4", b"\r\n1::2918:: 4")
    unpack(tmp_path / "odd", FILES["ml-1m"] | {"ratings.dat": lines})
    unpack(tmp_path / "plain", FILES["ml-1m"])
    odd, plain = (read("ml-1m", tmp_path / name).interactions for name in ("odd", "plain"))
    assert odd.equals(plain)
    unpack(tmp_path / "odd", {"ratings.dat": RATINGS_1M + b"x7::0010::4::5\n"})
    table = read("ml-1m", tmp_path / "odd").interactions
    assert table["user_id"].to_list() == ["1", "1", "2", "x7"]
    assert table["item_id"].to_list() == ["1193", "2918", "2918", "0010"]


def test_blocks_join_without_losing_a_line_or_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(rawlines, "BLOCK", 64)
    lines = [f"{user},{user % 7 + 1},4.0,{user * 10}" for user in range(1, 101)]
    content = "\n".join(["userId,movieId,rating,timestamp", *lines])
    unpack(tmp_path, {"ratings.csv": content.encode(), "movies.csv": MOVIES_CSV})
    table = read("ml-25m", tmp_path).interactions
    assert table["user_id"].to_list() == list(range(1, 101))
    assert table["timestamp"].to_list() == list(range(10, 1010, 10))
    broken = content.replace("\n77,1,4.0,", "\n77,1,NaN,")
    unpack(tmp_path, {"ratings.csv": broken.encode()})
    with pytest.raises(BadInputError, match=r"row 78, field 3 \(rating\): 'NaN' is not a number"):
        read("ml-25m", tmp_path)


@pytest.mark.parametrize("source", FILES)
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
        ("ratings.dat", RATINGS_1M + b"2::-10::4::x\n", "row 4, field 4 (timestamp): 'x'"),
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


def test_a_csv_edition_with_other_columns_is_refused(tmp_path):
    other = RATINGS_CSV.replace(b"userId", b"user")
    unpack(tmp_path, {"ratings.csv": other, "movies.csv": MOVIES_CSV})
    with pytest.raises(BadInputError, match=r"ratings\.csv, row 1: is 'user,movieId,rating,"):
        read("ml-25m", tmp_path)


@pytest.mark.parametrize(("more", "message"), [
    (b"3,4,5.0,9,1\n", "row 4: has 5 fields instead of 4"),
    (b"3,4,5.0\n", "row 4, field 4 (timestamp): is empty"),
    (b"3,4,5.0,99999999999999\n", "row 4, field 4 (timestamp): '99999999999999' is in milli"),
    (b"3,4,inf,9\n", "row 4, field 3 (rating): 'inf' is not a number"),
])  # fmt: skip
def test_a_bad_line_of_a_csv_edition_is_refused_by_row_and_field(tmp_path, more, message):
    unpack(tmp_path, {"ratings.csv": RATINGS_CSV + more, "movies.csv": MOVIES_CSV})
    with pytest.raises(BadInputError) as refusal:
        read("ml-20m", tmp_path)
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
