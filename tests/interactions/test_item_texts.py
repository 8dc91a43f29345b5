import pytest

from recalign.interactions.titles import attributes, clean, era, item_text, spoken


@pytest.mark.parametrize(
    ("title", "decade"),
    [
        ("Heat (1995)", "1990s"),
        ("2001: A Space Odyssey (1968)", "1960s"),
        ("Land Before Time III, The (1995) (V)", "1990s"),
        ("Doctor Who (2005-)", "2000s"),
        ("1984", None),
        ("Blade Runner (2049 cut)", None),
        ("unknown", None),
    ],
)
def test_era_is_the_decade_of_the_year_that_ends_the_title(title, decade):
    assert era(title) == decade


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("Heat, The (1995)", "The Heat (1995)"),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
        ("Avventura, L' (1960)", "L'Avventura (1960)"),
        (
            "Double vie de Véronique, La (Double Life of Veronique, The) (1991)",
            "La Double vie de Véronique (The Double Life of Veronique) (1991)",
        ),
        ("Cook, the Thief, His Wife, The (1989)", "The Cook, the Thief, His Wife (1989)"),
        ("Jungle Book, The", "The Jungle Book"),
        ("Aventure, L'", "L'Aventure"),
        ("Shampoo with Vitamin, A", "Shampoo with Vitamin, A"),
        ("Me, Myself and I (2000)", "Me, Myself and I (2000)"),
    ],
)
def test_articles_behind_the_comma_are_read_in_front(title, text):
    assert spoken(title) == text


def test_text_is_the_title_and_the_values_of_each_facet_in_words():
    names, values = ["genre", "era", "genre"], ["Action", "1990s", "Crime"]
    assert item_text("Heat (1995)", names, values) == (
        "Heat (1995): genre Action and Crime; era 1990s"
    )
    three = item_text("Heat, The", ["genre"] * 3, ["Action", "Crime", "Drama"])
    assert three == "The Heat: genre Action, Crime and Drama"
    assert item_text("Heat (1995)", [], []) == "Heat (1995)"


def test_values_are_flattened_cleaned_and_distinct():
    nested = [["Hair &amp; Skin", None], "A|B", [["  B\n", ""]], 7]
    assert [a["value"] for a in attributes("x", nested)] == ["Hair & Skin", "A", "B", "7"]
    assert attributes("x", None) == []


def test_entities_are_resolved_and_white_space_is_one_blank():
    assert clean(" Burt&#39;s \n Bees &lt;3 ") == "Burt's Bees <3"
