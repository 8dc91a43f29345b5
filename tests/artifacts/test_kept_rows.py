"""Rows kept under a key: found again by any process, however a part was damaged."""

import polars as pl

from recalign.artifacts.kept_rows import KeptRows, folder_of

COLUMNS = {"text": pl.String, "n": pl.Int32}


def rows(*values):
    columns = {"key": pl.String, **COLUMNS}
    return pl.DataFrame([(f"k{n}", f"text {n}", n) for n in values], schema=columns, orient="row")


def found(kept, *values):
    keys = pl.Series([f"k{n}" for n in values], dtype=pl.String)
    return sorted(kept.of(keys)["n"].to_list())


def test_another_process_finds_what_one_has_kept(tmp_path):
    first, second = KeptRows(tmp_path / "texts", COLUMNS), KeptRows(tmp_path / "texts", COLUMNS)
    first.add(rows(1, 2))
    second.add(rows(2, 3))
    third = KeptRows(tmp_path / "texts", COLUMNS)
    assert found(third, 1, 2, 3, 4) == [1, 2, 3]  # the row that both made is there once
    assert found(third, 4) == []
    assert found(first, 1, 3) == [1]


def test_a_damaged_part_is_left_out_and_so_are_files_of_others(tmp_path):
    kept = KeptRows(tmp_path, COLUMNS)
    kept.add(rows(1))
    [part] = tmp_path.glob("*.parquet")
    kept.add(rows(2))
    part.write_bytes(part.read_bytes()[:-20])
    pl.DataFrame({"other": [1]}).write_parquet(tmp_path / "other.parquet")
    (tmp_path / ".half.parquet.draft").write_bytes(b"PAR1")
    assert found(KeptRows(tmp_path, COLUMNS), 1, 2) == [2]


def test_rows_of_a_first_version_stay_where_they_were_and_those_of_a_higher_one_are_apart(tmp_path):
    made_by = {"policy": "digest", "settings": {"k": 1}}
    first, second, third = (folder_of(tmp_path, "llm", "texts", made_by, n) for n in (1, 2, 3))
    assert first.name == "texts-97b24acb0f2dcd6cb63129df86604427"
    assert len({first, second, third}) == 3
    assert second.parent == third.parent == first.parent  # gc deletes them with the LLM
