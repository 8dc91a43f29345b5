"""Titles are distinct, prompts show the last ones, and templates may be the user's own."""

from pathlib import Path

import polars as pl
import pytest

from recalign.config import TitlePromptConfig
from recalign.errors import UserError
from recalign.schemas import ITEMS
from recalign.titles.names import distinct_titles, normalised
from recalign.titles.prompts import TitlePrompts

TITLES = ["", "Heat (1995)", "Alien", "Aliens", "Emma"]


def items(*titles: str, ids: list[str] | None = None) -> pl.DataFrame:
    n = len(titles)
    columns = {
        "item_index": range(1, n + 1), "item_id": ids or [str(100 + i) for i in range(n)],
        "title": titles, "text": titles, "attributes": [[]] * n,
    }  # fmt: skip
    return pl.DataFrame(columns, schema=ITEMS)


def test_equal_titles_are_told_apart_by_their_ids_and_others_stay_as_they_are() -> None:
    found = distinct_titles(items("Emma", "Heat", "ＥＭＭＡ ", "Emma 2"))
    assert found == ["", "Emma [100]", "Heat", "ＥＭＭＡ [102]", "Emma 2"]


def test_no_title_is_empty_or_has_a_line_break() -> None:
    assert distinct_titles(items("", "One\nTwo\t 3")) == ["", "100", "One Two 3"]


def test_titles_are_in_the_order_of_item_index() -> None:
    assert distinct_titles(items("A", "B", "C").reverse()) == ["", "A", "B", "C"]


def test_titles_differ_even_where_a_title_ends_in_an_id_or_ids_look_alike() -> None:
    for table in (
        items("X [7]", "X", "X", ids=["9", "7", "8"]),
        items("X", "X", "X", ids=["a", "A", "b"]),
    ):
        found = distinct_titles(table)[1:]
        assert len({normalised(title) for title in found}) == 3, found


def test_normalising_ignores_case_blanks_and_compatibility_forms_but_no_sign() -> None:
    assert normalised("  ÉCLAIR\u00a0 No. 1 ") == normalised("e\u0301clair no. 1")
    assert normalised("Alien") != normalised("Aliens")
    assert normalised("Alien!") != normalised("Alien")


def test_a_history_is_its_last_titles_each_closed_by_a_line_break() -> None:
    prompts = TitlePrompts(TitlePromptConfig(history_items=2), TITLES)
    assert prompts.text([1, 2, 4]) == "Alien\nEmma\n"
    assert prompts.text([1]) == "Heat (1995)\n"
    assert prompts.text([]) == ""


def test_a_question_shows_the_last_titles_and_every_candidate_in_order() -> None:
    config = TitlePromptConfig(format="candidates", history_items=2)
    lines = TitlePrompts(config, TITLES).text([4, 1, 2], [3, 4]).splitlines()
    assert [line for line in lines if line.startswith(("1", "2", "-"))] == [
        "1. Heat (1995)", "2. Alien", "- Aliens", "- Emma"
    ]  # fmt: skip


def test_a_template_may_be_a_file_and_its_mistakes_are_told(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    config = TitlePromptConfig(format="candidates", template=str(own))
    with pytest.raises(UserError, match="neither a packaged one \\(next_item\\) nor a file"):
        TitlePrompts(config, TITLES)
    own.write_text("{{ history | join(', ') }} or {{ candidates[0] }}?")
    assert TitlePrompts(config, TITLES).text([1, 2], [4]) == "Heat (1995), Alien or Emma?"
    own.write_text("{{ items }}")
    with pytest.raises(UserError, match="'items' is undefined"):
        TitlePrompts(config, TITLES).text([1], [2])
