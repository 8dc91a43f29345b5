"""Prompts: what they show, in which order, and how a bad template is refused."""

import numpy as np
import polars as pl
import pytest

from recalign.errors import BadInputError, UserError
from recalign.reasonings.prompts import Renderer, render_prompts, template_file
from recalign.schemas import ITEMS
from recalign.sequences import Sequences

HEAT = {"genre": ["War", "Action"], "mood": ["dark"], "era": ["1970s"], "creator": ["Marlow"]}
ANNA = {"genre": ["Comedy"], "creator": ["Ana Lys"], "era": ["1990s"], "mood": ["light"]}
BARE = {"genre": ["Drama"]}


def items_table(*items):
    """Items 1, 2, ... with the given {facet: values}."""
    return pl.DataFrame(
        {
            "item_index": range(1, len(items) + 1),
            "item_id": [f"id{n}" for n in range(len(items))],
            "title": [f"Title {n + 1} " for n in range(len(items))],
            "text": [""] * len(items),
            "attributes": [
                [
                    {"name": name, "value": value}
                    for name, values in item.items()
                    for value in values
                ]
                for item in items
            ],
        },
        schema=ITEMS,
    )


def sequences(*users):
    offsets = np.cumsum([0, *map(len, users)])
    return Sequences(offsets, np.array([item for user in users for item in user]), 9)


def test_attributes_show_the_first_value_of_each_known_facet_in_fixed_order():
    render = Renderer("attributes", items_table(HEAT, ANNA, BARE))
    assert render([1, 2]) == "War Marlow 1970s dark ; Comedy Ana-Lys 1990s light ="
    assert render([3]) == "Drama none none none ="


def test_texts_of_a_warm_up_name_what_is_liked_and_the_last_item_or_the_next():
    items = items_table(HEAT, ANNA)
    liked = {"genre": ["War", "Action"], "era": ["1970s"]}
    told = {"liked": liked, "next": Renderer("likes", items).items[2]}
    start = "Likes genre War, Action. Likes era 1970s."
    assert Renderer("likes", items)([2, 1], **told) == f"{start} Lately Title 2; Title 1."
    assert Renderer("likes_next", items)([1], **told) == f"{start} Next Title 2."
    assert Renderer("likes_next", items)([1], liked={}, next=told["next"]) == "Next Title 2."


def test_recent_shows_titles_with_all_their_attributes_and_ends_in_the_question():
    render = Renderer("recent", items_table(ANNA, {}))
    shown = "- Title 1  (Comedy) (Ana Lys) (1990s) (light)\n- Title 2 \n\nWhat does"
    assert shown in render([1, 2])


def test_facets_that_no_item_has_are_not_shown():
    render = Renderer("attributes", items_table({"era": ["1970s"], "genre": ["War"]}))
    assert render([1, 1]) == "War 1970s ; War 1970s ="


def test_other_data_sets_show_their_own_facets_in_order_of_first_appearance():
    table = items_table({"category": ["Hair care"]}, {"brand": ["St. Ives"], "category": ["Skin"]})
    assert Renderer("attributes", table)([2, 1]) == "Skin St-Ives ; Hair-care none ="


def test_values_cannot_imitate_the_signs_of_the_prompt():
    table = items_table({"genre": [" ; "]}, {"genre": ["a = b ; c"]})
    assert Renderer("attributes", table)([1, 2]) == "none ; a-b-c ="


def test_attributes_of_items_without_any_are_refused():
    with pytest.raises(UserError, match=r"attributes.*the items have none"):
        Renderer("attributes", items_table({}, {}))([1])


@pytest.mark.parametrize(
    ("name", "factor"),
    [("movies", "soundtrack"), ("books", "writing style"), ("products", "reputation")],
)
def test_titles_are_listed_from_the_earliest_with_the_factors_of_the_domain(name, factor):
    prompt = Renderer(name, items_table({}, {}, {}))([3, 1])
    lines = prompt.splitlines()
    assert lines.index("1. Title 3 ") + 1 == lines.index("2. Title 1 ")
    assert factor in prompt
    assert prompt == prompt.rstrip()


def test_render_prompts_shows_the_last_items_below_the_cutoff():
    table = render_prompts(
        Renderer("attributes", items_table(HEAT, ANNA, BARE)),
        sequences([1, 2, 3, 1], [3, 3], [2, 1, 2]), np.array([2, 0]), np.array([2, 3]), 2,
    )  # fmt: skip
    assert table.drop("prompt").rows() == [(2, 2, 0, [2, 1]), (0, 3, 1, [2, 3])]
    assert table["prompt"][1] == "Comedy Ana-Lys 1990s light ; Drama none none none ="


def test_a_user_without_history_is_named():
    with pytest.raises(BadInputError, match="user 1 "):
        render_prompts(
            Renderer("attributes", items_table(HEAT)), sequences([1], [1]),
            np.array([0, 1]), np.array([1, 0]), 5,
        )  # fmt: skip


def test_a_file_of_ones_own_is_a_template(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("{{ history[0].title }}?")
    assert template_file(str(own)) == own
    assert Renderer(str(own), items_table({}))([1]) == "Title 1 ?"


def test_a_missing_template_is_named():
    with pytest.raises(UserError, match=r"'filmz'.*attributes, books, likes, .*recent"):
        Renderer("filmz", items_table({}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ histroy }}", "histroy"),
        ("{{ history[0].year }}", "year"),
        ("{% for item in history %}", "line 1"),
        ("  \n", "empty"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ history | sum }}", "TypeError"),
        ("{% include 'likes.txt' %}", "no loader"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named_with_the_cause(tmp_path, text, said):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=f"mine.txt.*{said}"):
        Renderer(str(path), items_table({}))([1])
