"""Text quality on a few hand-written reasonings with known truth."""

import polars as pl
import pytest

from recalign.evaluation.texts.quality import (
    facet_quality,
    liked_values,
    malformed_reasons,
    stated_values,
    text_quality,
)
from recalign.schemas import REASONINGS, TRUTH


def reasonings(*rows: tuple[int, int, str, str | None]) -> pl.DataFrame:
    full = [(user, sample, text, len(text.split()) + 1, why) for user, sample, text, why in rows]
    return pl.DataFrame(full, schema=REASONINGS, orient="row")


def parse(text: str) -> dict[str, list[str]] | None:
    if not text.startswith("Enjoys"):
        return None
    stated = [word.strip(".") for word in text.split()[1:]]
    return {"genre": [v for v in stated if not v[0].isdigit()],
            "era": [v for v in stated if v[0].isdigit()]}  # fmt: skip


TRUTHS = pl.DataFrame(
    [
        (0, 0, "genre", "War", 1.0),
        (0, 0, "era", "1970s", 1.0),
        (0, 10, "genre", "Science Fiction", 2.0),
        (0, 10, "genre", "Drama", 0.0),  # no weight: not liked
        (0, 10, "era", "1980s", 1.0),
        (1, 0, "genre", "War", 1.0),
        (1, 0, "genre", "Crime", 1.0),
    ],
    schema=TRUTH,
    orient="row",
)


def liked(cutoff: int) -> pl.DataFrame:
    return liked_values(TRUTHS, pl.DataFrame({"user_index": [0, 1], "cutoff": [cutoff, 5]}))


def test_tastes_are_those_in_force_at_the_cutoff():
    def of_first(cutoff: int) -> set[str]:
        return set(liked(cutoff).filter(pl.col("user_index") == 0)["value"])

    assert of_first(9) == {"war", "1970s"}
    assert of_first(10) == of_first(40) == {"science-fiction", "1980s"}


def test_figures_of_form_are_counted_per_text_and_per_user():
    table = reasonings(
        (0, 0, "Enjoys War.", None), (0, 1, "Enjoys War.", None), (0, 2, "War War War War", "loop"),
        (1, 0, "Enjoys War.", None),
    )  # fmt: skip
    figures = text_quality("base sampled", table).row(0, named=True)
    assert figures["words"] == (2 + 2 + 4 + 2) / 4
    assert figures["tokens"] == (3 + 3 + 5 + 3) / 4
    assert figures["distinct"] == 2 / 4
    assert figures["distinct_within_user"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["valid"] == 3 / 4
    assert (figures["n_users"], figures["n_texts"]) == (2, 4)


def test_malformed_reasons_come_most_frequent_first():
    table = reasonings((0, 0, "a", "short"), (0, 1, "b", "loop"), (1, 0, "c", "loop"),
                       (1, 1, "d", None))  # fmt: skip
    assert list(malformed_reasons(table).items()) == [("loop", 2), ("short", 1)]


def test_values_stated_twice_in_a_text_count_once():
    stated = stated_values(reasonings((0, 0, "Enjoys War War war.", None)), parse)
    assert stated.rows() == [(0, 0, "genre", "war")]


def test_precision_and_recall_per_facet_and_over_all():
    table = reasonings(
        (0, 0, "Enjoys Science-Fiction War 1980s.", None),  # genre 1 of 2, era 1 of 1
        (0, 1, "Enjoys War.", None),  # genre 0 of 1, era none
        (1, 0, "Enjoys War.", None),  # genre 1 of 1, finds 1 of 2
        (1, 1, "gibberish", "grammar"),  # states nothing
    )
    quality = facet_quality("base", table, liked(10), parse).to_dicts()
    genre, era, everything = (
        next(row for row in quality if row["facet"] == facet) for facet in ("genre", "era", "all")
    )
    assert genre["precision"] == pytest.approx((1 / 3 + 1) / 2)  # user 0: 1 of 3 stated
    assert genre["recall"] == pytest.approx((1 / 2 + 1 / 4) / 2)  # per text: 1, 0 | 1/2, 0
    assert genre["stated"] == pytest.approx((3 / 2 + 1 / 2) / 2)
    assert era["precision"] == 1.0  # user 1 states no era and has no say
    assert era["recall"] == pytest.approx(1 / 2)  # user 1 likes no era
    assert everything["precision"] == pytest.approx((2 / 4 + 1) / 2)
    assert everything["recall"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert {row["n_users"] for row in quality} == {2}


def test_texts_that_state_nothing_have_no_precision_and_no_recall():
    quality = facet_quality("base", reasonings((0, 0, "gibberish", "grammar")), liked(10), parse)
    everything = quality.filter(pl.col("facet") == "all").row(0, named=True)
    assert everything["precision"] is None
    assert everything["recall"] == 0.0


def test_liked_values_of_users_without_reasonings_do_not_count():
    quality = facet_quality("base", reasonings((1, 0, "Enjoys Crime.", None)), liked(10), parse)
    genre = quality.filter(pl.col("facet") == "genre").row(0, named=True)
    assert (genre["precision"], genre["recall"], genre["n_users"]) == (1.0, 0.5, 1)
