"""What counts as malformed, and the report over many texts."""

import polars as pl
import pytest

from recalign.config import SamplingConfig
from recalign.reasonings.texts import check_text, text_report
from recalign.schemas import REASONINGS

GOOD = "Enjoys War and Thriller. Favours 1970s works. Mood dark."
CONFIG = SamplingConfig(min_words=3)


@pytest.mark.parametrize(
    ("text", "finished", "reason"),
    [
        (GOOD, True, None),
        ("", True, "empty"),
        (" \n", False, "empty"),
        ("Enjoys War.", True, "short"),
        (GOOD, False, "unfinished"),
        ("I'm sorry, but I can't help with that request.", True, "refusal"),
        ("I’m unable to say what they like.", True, "refusal"),
        ("As an AI language model, I have no taste in movies.", True, "refusal"),
        ("The viewer was sorry to leave and cannot stop watching war films.", True, None),
        ("Enjoys war war war war films a lot", True, "repetition"),
        ("It is a very very very good match", True, None),
        ("Enjoys dark war films dark war films dark war films.", True, "repetition"),
        ("Enjoys dark war films and dark war films set at sea.", True, None),
        ("Likes war. Likes sea. Likes war. Likes sun. Likes war.", True, "repetition"),
        ("Likes war. Likes sea. Likes war. Likes sun.", True, None),
        ("Likes war! Likes war? Likes war.", True, "repetition"),
        ("Admires J.R.R. Tolkien and George R.R. Martin.", True, None),
        ("Likes creator A.S. Byatt, C.S. Lewis, T.S. Eliot.", True, None),
        ("Likes U.S. films, U.S. history and U.S. wars.", True, None),
        ("喜欢 老 电影。喜欢海。喜欢 老 电影！喜欢 老 电影。", True, "repetition"),
        ("Likes plots such as an AI uprising.", True, None),
        ("Likes heroes such as an AI, a robot and a cat.", True, None),
        ("As an AI, I have no taste in movies.", True, "refusal"),
        ("As an AI assistant I have no taste in movies.", True, "refusal"),
    ],
)
def test_the_first_reason_that_applies_is_given(text, finished, reason):
    assert check_text(text, finished, CONFIG) == reason


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry. The history is empty, so there is nothing to say.",
        "I am sorry to say that these titles tell me nothing.",
        "I'm sorry, I can't help you with that.",
        "Thank you for asking. I'm so sorry, but there is no history here.",
        "I apologize, but the history you gave is empty.",
        "I apologise for the confusion; ask me again.",
        "Unfortunately, I cannot provide personal information about users.",
        "Sorry, but I can't assist with that.",
        "Based on these titles alone, I cannot determine the taste of this viewer.",
        'Here is an answer:\n"I will not create a profile of anybody."',
        "I can't do that. Ask somebody else.",
        "The list is short. I am not able to tell what they like.",
        "As a large language model I have no taste in films.",
    ],
)
def test_a_refusal_begins_a_sentence_or_a_clause(text):
    assert check_text(text, True, CONFIG) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "Likes soul. Lately I Can't Help Myself (Sugar Pie, Honey Bunch); My Girl.",
        "Likes pop. Lately I'm Sorry; Hound Dog; Stay.",
        "Likes pop. I'm Sorry; Hound Dog.",
        "Likes pop. I'm Sorry, I Can't Help It, Hound Dog.",
        "Likes pop. I'm Sorry.",
        "I'm Sorry, Hound Dog and My Girl are what this user plays.",
        "Likes disco. I'm Sorry But I'm Beautiful; Stay.",
        "Likes soul. I Can't Help Falling in Love; I Can't Describe (The Way I Feel).",
        "Likes country. I Can't Help You Now; I Can't Do That Anymore.",
        "Likes rock. I Apologize; I'd Do Anything for Love (But I Won't Do That).",
        "Likes rock. Lately Stay, I Can't Do This.",
        "This viewer enjoys films that I can't help admiring.",
    ],
)
def test_titles_that_apologise_or_cannot_help_themselves_are_no_refusals(text):
    assert check_text(text, True, CONFIG) is None


def test_a_loop_cut_at_the_length_limit_counts_as_a_loop():
    assert check_text("and so on " * 20, False, CONFIG) == "repetition"


def test_a_grammar_is_checked_only_where_one_is_given():
    assert (
        check_text("War enjoys and thriller", True, CONFIG, lambda text: False) == "ungrammatical"
    )
    assert check_text("War enjoys and thriller", True, CONFIG, lambda text: True) is None


def test_the_report_counts_each_text_once():
    rows = [
        (0, -1, "a b c", 3, None), (0, 0, "a b c", 3, None), (0, 1, "a b c", 3, None),
        (0, 2, "a b c d", 5, "repetition"), (1, 0, "a b c", 3, None), (1, 1, "", 0, "empty"),
        (1, 2, "I cannot", 2, "refusal"),
    ]  # fmt: skip
    report = text_report(pl.DataFrame(rows, schema=REASONINGS, orient="row"))
    assert (report["n"], report["n_users"]) == (7, 2)
    assert report["mean_tokens"] == pytest.approx(19 / 7)
    assert report["mean_words"] == pytest.approx((4 * 3 + 4 + 0 + 2) / 7)
    # Sorted tokens 0 2 3 3 3 3 5: the median is 3, the 0.05 quantile 0.3 of the way from 0 to 2.
    assert report["token_quantiles"]["0.50"] == 3
    assert report["token_quantiles"]["0.05"] == pytest.approx(0.6)
    assert report["unique_share"] == pytest.approx(4 / 6)  # of the six sampled texts
    assert report["duplicates_within_user"] == 1  # user 0 wrote "a b c" twice; greedy aside
    assert report["malformed"] == {"empty": 1, "refusal": 1, "repetition": 1}
    assert report["malformed_share"] == pytest.approx(3 / 7)
    assert report["refusals"] == 1


def test_an_empty_table_has_an_empty_report():
    report = text_report(pl.DataFrame(schema=REASONINGS))
    assert (report["n"], report["mean_tokens"], report["malformed"]) == (0, 0.0, {})
