"""Whatever a file holds, a reader gives tables or a UserError; nothing else ever comes out.

READER_EXAMPLES=10000 python -m pytest tests/interactions/test_reader_fuzz.py for a long search.
"""

import gzip
import io
import json
import os
import zipfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recalign.config import InteractionsConfig
from recalign.errors import UserError
from recalign.interactions.ingest import ingest
from recalign.interactions.lastfm import ARTISTS, PLAYS, TAGGINGS
from recalign.interactions.sources import read_source, source_files

EXAMPLES = int(os.environ.get("READER_EXAMPLES", "150"))
NAMES = ["user_id", "item_id", "timestamp", "rating", "title", "genres", "row", "__row__", "=title"]
USUAL = NAMES[:6]
MARKS = ["", " ", ",", ";", "\t", "|", '"', "\r", "\n", "\0", "\ufeff", "::", "\x85", "\u2028"]
WORDS = [
    "1", "2", "a", "B", "1.0", "12.0", "1e39", "1e400", "nan", "inf", "-0", "1,5", "1.234,5", "07",
    "9007199254740993", "18446744073709551616", "1398902400", "1398902400000", "1398902400000000",
    "41760.5", "20140501", "2014-05-01", "2014-05-01T12:00:00Z", "0000-00-00", "10000-01-01",
    "true", "null", "[]", "{}", "\\ud83d", "Heat, The", "A|B", "&amp;", "é",
]  # fmt: skip
cell = st.one_of(
    st.sampled_from([*WORDS, *MARKS]), st.text(max_size=6), st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip
value = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), cell,
        st.characters(categories=["Cs"]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(cell, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
usual = st.fixed_dictionaries(dict.fromkeys(USUAL, cell))


@st.composite
def tables(draw):
    """Bytes of a CSV whose separator, quotes, ends of lines and encoding are anybody's."""
    separator = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    header = draw(st.one_of(st.just(USUAL), st.lists(st.sampled_from(NAMES), max_size=8)))
    rows = draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header)), max_size=4))
    rows += draw(st.lists(st.lists(cell, max_size=9), max_size=1))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    text = end.join(separator.join(row) for row in [header, *rows])
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
    return text.encode(encoding, "surrogatepass")


@st.composite
def objects(draw):
    """Bytes of lines of JSON, some of them of other names, broken or blank."""
    named = st.dictionaries(st.sampled_from(NAMES), value, max_size=6)
    whole = st.builds(lambda first, more: first | more, usual, named)
    lines = draw(st.lists(whole.map(json.dumps), max_size=4))
    odd = st.one_of(named.map(json.dumps), value.map(json.dumps), cell)
    lines += draw(st.lists(odd, max_size=2))
    start = draw(st.sampled_from(["", "", "\ufeff", "\n"]))
    return (start + "\n".join(draw(st.permutations(lines)))).encode("utf-8", "surrogatepass")


COLUMNS = [
    pl.Series([1, 2]), pl.Series([1.0, float("nan")]), pl.Series([2.0**53, 1e300]),
    pl.Series(["a", None]), pl.Series(["1", "2"], dtype=pl.Categorical), pl.Series([True, False]),
    pl.Series([date(2014, 5, 1)] * 2), pl.Series([datetime(1, 1, 1), datetime(9999, 12, 31)]),
    pl.Series([timedelta(1)] * 2), pl.Series([[1], []]), pl.Series([{"x": 1}] * 2),
    pl.Series([b"\xff", b"a"]), pl.Series([Decimal("1.50"), None]), pl.Series([None, None]),
    pl.Series([1.4e9, 1.5e9], dtype=pl.Float32), pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
    pl.Series([1, 2], dtype=pl.Duration("ns")), pl.Series([0, 1]).cast(pl.Time),
]  # fmt: skip


@st.composite
def parquets(draw):
    """Bytes of a Parquet file with columns of any type, and perhaps one byte wrong."""
    names = draw(st.one_of(st.just(USUAL), st.lists(st.sampled_from(NAMES), unique=True)))
    table = pl.DataFrame({name: draw(st.sampled_from(COLUMNS)) for name in names})
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    content = bytearray(buffer.getvalue())
    if draw(st.integers(0, 3)) == 0:
        content[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
    return bytes(content)


@st.composite
def packed(draw, content):
    """The content, perhaps gzipped, cut short or with a wrong byte."""
    made = draw(content)
    made = gzip.compress(made) if draw(st.integers(0, 4)) == 0 else made
    if made and draw(st.integers(0, 6)) == 0:
        made = made[: draw(st.integers(0, len(made)))]
    return made


KINDS = {
    ".csv": packed(tables()), ".tsv": packed(tables()), ".csv.gz": packed(tables()),
    ".CSV": packed(tables()), ".jsonl": packed(objects()), ".jsonl.gz": packed(objects()),
    ".parquet": parquets(),
}  # fmt: skip
file = st.sampled_from(sorted(KINDS)).flatmap(lambda kind: st.tuples(st.just(kind), KINDS[kind]))
naming = st.fixed_dictionaries(
    {},
    optional={
        "user_column": st.sampled_from(NAMES), "timestamp_column": st.sampled_from([*NAMES, ""]),
        "rating_column": st.sampled_from(["rating", ""]),
        "title_column": st.sampled_from([*NAMES, ""]),
        "attribute_columns": st.lists(st.sampled_from([*NAMES, ""]), max_size=3),
    },
)  # fmt: skip


def only_user_errors(settings_of, files):
    """Read and ingest the files, by name, in a folder of their own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file_name, content in files.items():
            (folder / file_name).write_bytes(content)
        try:
            config = InteractionsConfig.model_validate(settings_of(folder))
            ingest(read_source(config, source_files(config, folder)), config)
        except (UserError, ValidationError):  # settings: the command line tells those in one line
            pass


quick = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@quick
@given(file, st.none() | file, naming, st.sampled_from(["first", "last", "keep"]))
@example((".csv", b"user_id,item_id,timestamp\n1,2,3\n"), (".csv", b"item_id\n2\n"),
         {"title_column": ""}, "first")  # fmt: skip
def test_own_files_give_tables_or_a_user_error(interactions, items, naming, duplicates):
    files = {"i" + interactions[0]: interactions[1]}
    if items:
        files["t" + items[0]] = items[1]

    def settings_of(folder):
        named = {"interactions": str(folder / ("i" + interactions[0]))}
        named |= {"items": str(folder / ("t" + items[0]))} if items else {}
        return {"source": "files", "files": named | naming, "duplicates": duplicates}

    only_user_errors(settings_of, files)


FORMS = {  # source: separators of its lines, and its files
    "ml-100k": ("\t", "|", ["u.data", "u.item"]),
    "ml-1m": ("::", "::", ["ratings.dat", "movies.dat"]),
    "ml-25m": (",", ",", ["ratings.csv", "movies.csv"]),
    "lastfm": ("\t", "\t", [TAGGINGS, PLAYS, ARTISTS]),
}  # fmt: skip
HEADERS = {
    "ratings.csv": "userId,movieId,rating,timestamp\n",
    TAGGINGS: "userID\tartistID\ttagID\ttimestamp\n",
    PLAYS: "userID\tartistID\tweight\n",
    ARTISTS: "id\tname\n",
}


@st.composite
def published_files(draw):
    """A source and its files: lines of cells, sometimes in a zip, sometimes damaged."""
    source = draw(st.sampled_from(sorted(FORMS)))
    first, rest, names = FORMS[source]
    files = {}
    for name in names:
        separator = first if name == names[0] else rest
        widths = st.sampled_from([24, 3] if name == "u.item" else [4, 4, 3])
        row = widths.flatmap(lambda n: st.lists(cell, min_size=n, max_size=n))
        lines = [separator.join(cells) for cells in draw(st.lists(row, max_size=3))]
        content = (HEADERS.get(name, "") + "\n".join(lines)).encode("utf-8", "surrogatepass")
        files[name] = draw(packed(st.just(content)))
    if draw(st.booleans()) and source != "lastfm":
        buffer = io.BytesIO()
        method = draw(st.sampled_from([8, 12, 14]))
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(f"{source}/{name}", content)
        zipped = bytearray(buffer.getvalue())
        for _ in range(draw(st.integers(0, 2))):
            zipped[draw(st.integers(0, len(zipped) - 1))] = draw(st.integers(0, 255))
        files = {f"{source}.zip": bytes(zipped)}
    return source, files


@quick
@given(published_files())
@example(("ml-25m", {
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,3,9\n",
    "movies.csv": b"movieId,title,genres\n1,A,\r1,B",  # a line that ends in \r alone
}))  # fmt: skip
@example(("ml-25m", {
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,3,9\n",
    "movies.csv": b'movieId,title,genres\n1,"' + 140_000 * b"x",  # beyond csv's longest field
}))  # fmt: skip
def test_files_of_lines_give_tables_or_a_user_error(made):
    source, files = made
    only_user_errors(lambda folder: {"source": source, "raw_folder": str(folder)}, files)


LITERALS = {  # source: names of the fields of each file
    "amazon": {
        "reviews_Beauty_5.json": ["reviewerID", "asin", "overall", "unixReviewTime"],
        "meta_Beauty.json": ["asin", "title", "brand", "categories", "details"],
    },
    "steam": {
        "steam_reviews.json": ["username", "product_id", "date"],
        "steam_games.json": ["id", "title", "genres", "release_date"],
    },
    "goodreads": {
        "goodreads_interactions_poetry.json": ["user_id", "book_id", "rating", "date_added"],
        "goodreads_books_poetry.json": ["book_id", "title", "authors", "publication_year"],
        "goodreads_book_authors.json": ["author_id", "name"],
        "goodreads_book_genres_initial.json": ["book_id", "genres"],
    },
}


@st.composite
def literal_files(draw):
    """A source and its files: lines of JSON, of Python literals, or of neither."""
    source = draw(st.sampled_from(sorted(LITERALS)))
    files = {}
    for name, fields in LITERALS[source].items():
        record = st.fixed_dictionaries(dict.fromkeys(fields, value))
        written = st.sampled_from([json.dumps, repr])
        line = st.one_of(st.builds(lambda how, one: how(one), written, record), cell)
        lines = draw(st.lists(line, min_size=1, max_size=3))
        files[name] = "\n".join(lines).encode("utf-8", "surrogatepass")
    return source, files


@quick
@given(literal_files())
def test_files_of_json_and_python_literals_give_tables_or_a_user_error(made):
    source, files = made
    only_user_errors(lambda folder: {"source": source, "raw_folder": str(folder)}, files)
