"""A row that lacks a cell is refused, whatever the other rows are; an empty last cell is none."""

import time
from pathlib import Path

import pytest

from recalign.config import FilesSource, InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.cells import read_cells
from recalign.interactions.rawtables import RawTables
from recalign.interactions.sources import read_source, source_files
from recalign.progress import silent

HEAD = "user_id,item_id,timestamp,rating\n"
STRAY = 'b,a "quote,1398902470,5\n'
"""What only the lenient reader takes."""
RATED = {"user_id": "user_id", "rating": "rating"}


def read(folder: Path, text: str, items: str = "") -> RawTables:
    (folder / "i.csv").write_text(text)
    (folder / "t.csv").write_text(items)
    source = FilesSource(
        interactions=str(folder / "i.csv"),
        items=str(folder / "t.csv") if items else "",
        rating_column="rating",
        attribute_columns=["genres"] if items else [],
    )
    config = InteractionsConfig(source="files", files=source)
    return read_source(config, source_files(config, folder))


@pytest.mark.parametrize("other", ["b,x,1398902470,5\n", "b,x,1398902470,\n", STRAY, "\n", ",,,\n"])
@pytest.mark.parametrize("before", ["", "first"])
def test_a_row_that_lacks_its_item_is_refused_whatever_the_others_are(tmp_path, other, before):
    short = "a,1398902460,4\n"
    rows, line = (other + short, 3) if before else (short + other, 2)
    with pytest.raises(BadInputError) as refusal:
        read(tmp_path, HEAD + rows)
    told = f"{tmp_path / 'i.csv'}, row {line}: has 3 fields, the header has 4; mend the row"
    assert told in str(refusal.value)


@pytest.mark.parametrize("stray", ["", STRAY])
def test_a_bad_row_behind_a_very_long_cell_is_named(tmp_path, stray):
    """Longer than the 131,072 characters at which Python's reader stops by itself."""
    long = f'"{"T" * 200_000}"'
    with pytest.raises(BadInputError, match=r"i\.csv, row \d, field timestamp: 'noon' is not a"):
        read(tmp_path, HEAD + stray + f"a,{long},1398902460,4\na,x,noon,4\n")
    found = read(tmp_path, HEAD + stray + f"a,{long},1398902460,4\n").interactions
    assert len(found["item_id"][-1]) == 200_000


def test_an_items_title_is_never_its_genre(tmp_path):
    items = 'item_id,title,genres\ny,"Heat, The",Crime\nx,Drama\n'
    with pytest.raises(BadInputError, match=r"t\.csv, row 3: has 2 fields, the header has 3"):
        read(tmp_path, HEAD + "a,x,1398902460,4\n", items)


@pytest.mark.parametrize("stray", ["", STRAY])
@pytest.mark.parametrize("blank", ["", "\n", ",\n", ",,,\n"])
@pytest.mark.parametrize("item", ["x", 'x, the "y"', "x\ny,"])
def test_an_empty_last_cell_behind_its_separator_is_an_empty_cell(tmp_path, item, blank, stray):
    quoted = '"' + item.replace('"', '""') + '"'
    rows = f"a,{quoted},1398902460,\n{blank}b,z,1398902461,3\nc,z,1398902462,"
    found = read(tmp_path, HEAD + stray + rows).interactions
    assert found["rating"].to_list()[-3:] == [None, 3, None]
    assert found["item_id"].to_list()[-3] == item


def test_a_name_of_a_column_may_hold_the_separator(tmp_path):
    head = HEAD.replace("rating", '"rating, of 5",rating')
    assert read(tmp_path, head + "a,x,1398902460,,\n").interactions["rating"].to_list() == [None]
    with pytest.raises(BadInputError, match=r"row 2: has 4 fields, the header has 5"):
        read(tmp_path, head + "a,x,1398902460,\n")


def test_a_large_file_of_empty_last_cells_is_not_read_record_by_record(tmp_path):
    """Its whole reading takes about as long as that of a file without empty cells."""
    rows = "".join(f"{n % 997},{n},1398902460,{{}}\n" for n in range(100_000))
    seconds = {}
    for rating in ("4", ""):
        path = tmp_path / f"i{rating}.csv"
        path.write_text(HEAD + rows.replace("{}", rating))
        took = []
        for _ in range(5):
            began = time.process_time()
            read_cells(path, RATED, silent)
            took.append(time.process_time() - began)
        seconds[rating] = min(took)
    assert seconds[""] < 2 * seconds["4"]
