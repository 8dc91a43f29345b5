"""Sentences of the embedded policy, and the rule-based reasoners that write them."""

import time

import numpy as np
import polars as pl
import pytest

from recalign.embedded.grammar import parse_reasoning, write_reasoning
from recalign.embedded.reasoners import (
    REASONERS,
    Reasoner,
    facets_of,
    reasonings_by_rule,
    strongest_values,
)
from recalign.errors import UserError
from recalign.words import one_word


def items_of(*attributes: list[tuple[str, str]]) -> pl.DataFrame:
    """An ITEMS table (the columns that are read) with these attributes, items 1, 2, ..."""
    return pl.DataFrame(
        {
            "item_index": pl.Series(range(1, len(attributes) + 1), dtype=pl.Int32),
            "attributes": pl.Series(
                [[{"name": n, "value": v} for n, v in one] for one in attributes],
                dtype=pl.List(pl.Struct({"name": pl.String, "value": pl.String})),
            ),
        }
    )


FILMS = items_of(
    [("genre", "War"), ("genre", "Drama"), ("creator", "Marlow"), ("era", "1970s"),
     ("mood", "dark")],
    [("genre", "War"), ("creator", "Marlow"), ("era", "1970s"), ("mood", "light")],
    [("genre", "Comedy"), ("creator", "Ana"), ("era", "1990s"), ("mood", "light")],
    [("genre", "Comedy"), ("genre", "Romance"), ("creator", "Bo"), ("era", "2000s"),
     ("mood", "wry")],
)  # fmt: skip


def read(text: str) -> dict[str, list[str]]:
    values = parse_reasoning(text)
    assert values is not None
    return values


def write(
    name: Reasoner, *histories: list[int], items: pl.DataFrame = FILMS, seed: int = 0
) -> list[str]:
    return reasonings_by_rule(
        name, facets_of(items), [np.array(h, dtype=int) for h in histories], seed
    )


def test_a_reasoning_reads_back_as_what_was_written() -> None:
    values = {
        "genre": ["War", "Thriller"], "era": ["1970s"], "mood": ["dark"], "creator": ["Marlow"],
    }  # fmt: skip
    text = write_reasoning(values)
    assert text == "Enjoys War and Thriller. Favours 1970s works. Mood dark. Follows Marlow."
    assert parse_reasoning(text) == values
    other = {"category": ["Hair-Care"], "brand": ["L'Oréal", "Joico"]}
    text = write_reasoning(other)
    assert text == "Likes category Hair-Care. Likes brand L'Oréal and Joico."
    assert parse_reasoning(text) == other


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Enjoys War",  # no full stop
        "Enjoys War and War.",  # the same value twice
        "Enjoys War. Enjoys Comedy.",  # the same facet twice
        "Enjoys War and Comedy and Drama.",
        "Enjoys .",
        "Enjoys War.Mood dark.",
        "Favours 1970s.",
        "Enjoys War. The user likes war.",
        "Likes category.",
    ],
)
def test_what_does_not_follow_the_grammar_is_not_read(text: str) -> None:
    assert parse_reasoning(text) is None


def test_facets_may_come_in_any_order() -> None:
    assert parse_reasoning(" Mood dark. Enjoys War.\n") == {"mood": ["dark"], "genre": ["War"]}


def test_values_become_single_words_without_signs_of_the_grammar() -> None:
    assert one_word("Dr. Seuss & Co.") == "Dr-Seuss-&-Co"
    assert one_word("Children's") == "Children's"
    assert one_word(" ; = ") == "none"


def test_counts_names_the_most_frequent_value_and_leaves_out_what_was_seen_once() -> None:
    # genres War 2 (older), Comedy 2, Drama 1; creator Marlow 2, Ana 2 (more recent); light 3
    assert write("counts", [1, 2, 3, 3]) == [
        "Enjoys Comedy. Favours 1990s works. Mood light. Follows Ana."
    ]
    # creators, eras and moods all differ: only the first facet is written of single sightings
    assert write("counts", [2, 3, 4, 1]) == [
        "Enjoys War. Favours 1970s works. Mood light. Follows Marlow."
    ]
    assert write("counts", [2, 3, 4, 4, 3]) == [
        "Enjoys Comedy. Favours 1990s works. Mood light. Follows Ana."
    ]


def test_last_names_the_values_of_the_last_items() -> None:
    assert write("last", [3, 3, 3, 1]) == [
        "Enjoys Drama. Favours 1970s works. Mood dark. Follows Marlow."
    ]
    assert write("last", [1, 3])[0].startswith("Enjoys Comedy.")


def test_lift_prefers_what_the_catalogue_has_little_of_and_what_is_recent() -> None:
    # War has 2 of 4 items, Romance 1 of 4: seen twice each, Romance is the larger surprise
    assert write("lift", [2, 4, 2, 4])[0].startswith("Enjoys Romance.")
    assert write("counts", [2, 4, 2, 4])[0].startswith("Enjoys Comedy.")
    old_war, old_comedy = [2] * 9 + [3] * 8, [3] * 9 + [2] * 8
    assert write("lift", old_war)[0].startswith("Enjoys Comedy.")
    assert write("lift", old_comedy)[0].startswith("Enjoys War.")
    assert write("counts", old_war)[0].startswith("Enjoys War.")


def test_popular_follows_all_histories_and_random_follows_none() -> None:
    histories = [[2]] * 2900 + [[3]] * 100
    popular = write("popular", *histories)
    eras = [read(text)["era"][0] for text in popular]
    assert abs(eras.count("1970s") / 3000 - 29 / 30) < 4 * np.sqrt(29 / 30**2 / 3000)
    assert "2000s" not in eras  # nobody has it
    random = [read(text)["era"][0] for text in write("random", *histories)]
    for era in ("1970s", "1990s", "2000s"):
        assert abs(random.count(era) / 3000 - 1 / 3) < 4 * np.sqrt(2 / 9 / 3000)
    assert write("random", *histories) == write("random", *histories)
    assert write("random", *histories) != write("random", *histories, seed=1)


@pytest.mark.parametrize("name", REASONERS)
def test_every_reasoner_follows_the_grammar(name: Reasoner) -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 5, size=rng.integers(1, 12)) for _ in range(200)]
    texts = reasonings_by_rule(name, facets_of(FILMS), histories, 0)
    values = [read(text) for text in texts]
    assert {facet for value in values for facet in value} == {"genre", "era", "mood", "creator"}
    assert all(
        list(v) == [f for f in ("genre", "era", "mood", "creator") if f in v] for v in values
    )


@pytest.mark.parametrize("name", ["lift", "counts", "last"])
def test_a_history_reads_the_same_whatever_others_are_asked_for(name: Reasoner) -> None:
    histories = [[1, 2, 3], [4], [3, 3, 1, 2, 4]]
    together = write(name, *histories)
    assert together == [write(name, history)[0] for history in histories]


def test_unknown_facets_follow_by_name_and_at_most_four_sentences_are_written() -> None:
    items = items_of(
        [("writer", "X"), ("category", "Hair Care"), ("category", "Tools"), ("brand", "B"),
         ("genre", "War"), ("size", "big")],
        [("writer", "Y"), ("category", "Hair Care"), ("brand", "C"), ("genre", "War")],
    )  # fmt: skip
    assert facets_of(items).names == ["genre", "brand", "category", "size"]
    assert write("last", [1], items=items) == [
        "Enjoys War. Likes brand B. Likes category Hair-Care. Likes size big."
    ]


def test_a_history_without_attributes_gives_an_empty_text_and_a_table_without_any_is_refused() -> (
    None
):
    items = items_of([("genre", "War")], [])
    assert write("counts", [2], [1], items=items) == ["", "Enjoys War."]
    with pytest.raises(UserError, match="no item has any"):
        write("counts", [1], items=items_of([], []))


def test_eight_thousand_texts_take_two_cpu_seconds_at_most() -> None:
    rng = np.random.default_rng(0)
    facets = {"genre": 12, "creator": 100, "era": 6, "mood": 8}
    items = items_of(
        *([(f, f"{f}{rng.integers(n)}") for f, n in facets.items()] for _ in range(1000))
    )
    histories = [rng.integers(1, 1001, size=12) for _ in range(8000)]
    start = time.process_time()
    texts = reasonings_by_rule("lift", facets_of(items), histories, 0)
    assert time.process_time() - start < 2
    assert len(set(texts)) > 4000


def test_the_strongest_values_are_those_that_lift_names_first_and_at_most_so_many():
    histories = [np.array([1, 3, 2, 2]), np.array([], dtype=int), np.array([4])]
    liked = strongest_values(facets_of(FILMS), histories, 2)
    assert liked[0]["genre"][0] == read(write("lift", [1, 3, 2, 2])[0])["genre"][0] == "War"
    assert len(liked[0]["genre"]) == 2
    assert liked[0]["era"] == ["1970s"]  # 1990s was seen once, in a history that is long enough
    assert liked[1] == {}
    assert liked[2] == {
        "genre": ["Romance", "Comedy"], "era": ["2000s"], "mood": ["wry"], "creator": ["Bo"],
    }  # fmt: skip
    assert list(liked[2]) == facets_of(FILMS).names
    written = facets_of(items_of([("genre", "Sci-Fi")], [("genre", "J. R. R. Tolkien")]))
    assert strongest_values(written, [np.array([1]), np.array([2])], 1) == [
        {"genre": ["Sci-Fi"]}, {"genre": ["J. R. R. Tolkien"]},
    ]  # fmt: skip
