"""The verdict and the sentences claim what the intervals show, and no more."""

import polars as pl
import pytest

from recalign.metric_columns import NDCG_AT_10, RERANKED_NDCG, Metric, told_intervals
from recalign.report.content import DataSet, Opening, Round
from recalign.report.dpo4rec_opening import opening, what_was_run
from recalign.report.stage_page import escape, result_table
from recalign.report.wording import count, duration, interval, percent, plural, reasons, signed
from recalign.schemas import RESULTS


def line(row, policy, decoding, recommender, mean, base=None, shift=(None,) * 3, metric=NDCG_AT_10):
    relative = shift[0] / 0.1 if base else None
    known = (row, policy, decoding, recommender, None, None, *metric)
    return (*known, mean, mean - 0.01, mean + 0.01, base, *shift, relative, 500)


def table(low: float, high: float) -> pl.DataFrame:
    shift = ((low + high) / 2, low, high)
    return pl.DataFrame(
        [
            line("SASRec", "none", "none", "sasrec", 0.1),
            line("Template lift", "lift", "none", "frozen", 0.13, "SASRec", (0.03, 0.02, 0.04)),
            line("Template random", "random", "none", "frozen", 0.1, "SASRec", (0.0, -0.1, 0.1)),
            line("Shuffled", "shuffled", "sampled", "frozen", 0.104, "Base", (-0.1, -0.2, -0.01)),
            line("Base", "base", "greedy", "frozen", 0.11, "SASRec", (0.01, 0.002, 0.018)),
            line("Aligned", "aligned", "greedy", "frozen", 0.12, "Base", shift),
            line("Aligned refitted", "aligned", "greedy", "refitted", 0.9, "Base", (0.8, 0.7, 0.9)),
        ],
        schema=RESULTS,
        orient="row",
    )


DATA = DataSet("ml-1m", 6040, 3416, 999611)


def opened(results: pl.DataFrame) -> Opening:
    return opening(results, DATA, [])


def changed(low: float, high: float) -> str:
    return opened(table(low, high)).notes[0]


def with_sampled(*shift: float) -> pl.DataFrame:
    sampled = line("Sampled", "aligned", "sampled", "frozen", 0.1, "Base", shift)
    both = [table(0.002, 0.018), pl.DataFrame([sampled], schema=RESULTS, orient="row")]
    return pl.concat(both)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "tone"),
    [
        (0.002, 0.018, "Alignment improved NDCG@10 on 500 test users.", "better"),
        (-0.018, -0.002, "Alignment made NDCG@10 worse on 500 test users.", "worse"),
        (-0.001, 0.021, "No gain from alignment is shown in NDCG@10 on 500 test users.", "same"),
        (0.0, 0.02, "No gain from alignment is shown in NDCG@10 on 500 test users.", "same"),
        (4e-5, 0.02, "No gain from alignment is shown in NDCG@10 on 500 test users.", "same"),
    ],
)
def test_the_verdict_claims_a_gain_only_where_the_interval_lies_above_zero(
    low, high, verdict, tone
):
    first = opened(table(low, high))
    assert (first.verdict, first.tone) == (verdict, tone)
    assert {card.tone for card in first.cards} == {tone}


def test_a_verdict_on_two_answers_that_differ_names_both():
    first = opened(with_sampled(0.0, -0.01, 0.01))
    assert first.verdict == (
        "Alignment: a gain with greedy texts and no difference shown with sampled texts, "
        "in NDCG@10 on 500 test users."
    )
    assert first.tone == ""


def test_two_answers_that_agree_make_one_verdict():
    assert opened(with_sampled(0.01, 0.005, 0.02)).verdict.startswith("Alignment improved")


def test_the_picture_holds_the_main_comparisons_alone_the_aligned_policy_first():
    picture = opened(table(0.002, 0.018)).picture
    assert picture is not None
    svg = picture.svg
    rows = ["Aligned", "Base", "Shuffled"]
    places = [svg.index(f">{row}<") for row in rows]
    assert places == sorted(places)
    assert "Template" not in svg
    assert "refitted" not in svg


def of_few(results: pl.DataFrame) -> pl.DataFrame:
    """RESULTS as five users give them."""
    return told_intervals(results.with_columns(n_users=pl.lit(5, pl.Int64)))


def test_of_a_handful_of_users_nothing_is_claimed_and_the_page_says_why():
    first = opened(of_few(table(0.002, 0.018)))
    assert first.verdict == (
        "What alignment changed cannot be told on 5 test users: they are too few for an interval."
    )
    assert (first.tone, first.notes, first.picture) == ("", [], None)
    assert {(card.tone, card.change, card.bounds) for card in first.cards} == {
        ("", "+0.0100", "too few users")
    }


def test_interval_above_zero_is_a_gain():
    assert "+0.0100 with greedy texts" in changed(0.002, 0.018)
    assert "[+0.0020, +0.0180]: a gain)" in changed(0.002, 0.018)


def test_interval_that_holds_zero_claims_nothing():
    sentence = changed(-0.001, 0.021)
    assert "no difference shown" in sentence
    assert "gain" not in sentence


def test_interval_that_only_touches_zero_claims_nothing():
    assert "no difference shown" in changed(0.0, 0.02)
    assert "no difference shown" in changed(-0.2, 0.0)


def test_a_bound_that_is_printed_as_zero_is_judged_as_zero():
    assert "[−0.0104, 0.0000]: no difference shown" in changed(-0.0104, -4e-5)
    assert "[0.0000, +0.0104]: no difference shown" in changed(4e-5, 0.0104)


def test_interval_below_zero_is_a_loss():
    assert "−0.0100 with greedy" in changed(-0.018, -0.002)
    assert "]: a loss)" in changed(-0.018, -0.002)


def test_headline_is_the_frozen_recommender_not_the_largest_number():
    assert "0.9" not in changed(0.002, 0.018)


def test_reasonings_are_set_against_sasrec_shuffled_texts_and_the_best_template():
    sentence = opened(table(0.0, 0.02)).notes[1]
    assert "Without any text the recommender reaches 0.1000" in sentence
    assert "+0.0100 [+0.0020, +0.0180] (a gain)" in sentence
    assert (
        "the base policy's sampled texts shuffled across users reach 0.1040, "
        "−0.1000 [−0.2000, −0.0100] (a loss) against the users' own;"
    ) in sentence
    assert "(Template lift) reaches 0.1300." in sentence


def test_run_is_told_with_its_rounds_and_pairs():
    first = Round(1, 0.21, True, n_pairs=1100, n_aligned=1000)
    rounds = [Round(0, 0.2), first, Round(2, 0.205, n_pairs=560, n_aligned=500)]
    sentence = what_was_run(DATA, rounds)
    assert "999,611 interactions of 6,040 users and 3,416 items (ml-1m)" in sentence
    assert "2 rounds on 1,500 pairs of texts" in sentence
    assert "round 1 was kept by its validation (0.2100 against 0.2000 before)" in sentence
    sentence = what_was_run(DATA, [Round(1, n_pairs=1100, n_aligned=900, by_pairs=False)])
    assert "1 round on 900 prompts, so that" in sentence


def test_kept_round_that_does_not_beat_the_base_policy_is_named_so():
    rounds = [Round(0, 0.2), Round(1, 0.19, True)]
    sentence = what_was_run(DATA, rounds)
    assert "although its validation (0.1900) does not beat the base policy's (0.2000)" in sentence
    assert "was aligned in 1 round, so that" in sentence


def test_without_an_aligned_row_there_is_no_sentence_about_alignment():
    results = table(0.0, 0.02).filter(pl.col("policy") != "aligned")
    first = opened(results)
    assert len(first.notes) == 1
    assert "alignment" not in first.notes[0]
    assert (first.verdict, first.tone, first.cards) == ("", "", [])


def test_where_the_cut_off_was_not_measured_the_verdict_is_in_full_depth_ndcg():
    full = table(0.002, 0.018).with_columns(k=pl.lit(None, pl.Int32))
    assert opened(full).verdict == "Alignment improved NDCG on 500 test users."
    assert "changed NDCG by" in opened(full).notes[0]


def test_markdown_table_has_one_line_per_row_with_difference_and_interval():
    lines = result_table(table(-0.001, 0.021), [NDCG_AT_10]).splitlines()
    assert lines[0] == "| row | compared with | NDCG@10 | difference | 95 % interval |"
    assert lines[2] == "| SASRec |  | 0.1000 |  |  |"
    assert lines[7] == "| Aligned | Base | 0.1200 | +0.0100 (+10.0 %) | [−0.0010, +0.0210] |"
    assert "500 users" in lines[-1]


def test_markdown_of_a_metric_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="no MRR@3"):
        result_table(table(0, 1), [Metric("catalogue", "MRR", 3)])


def test_markdown_cells_cannot_break_the_table():
    assert escape("a|b\n*c* <b>") == r"a\|b \*c\* \<b\>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (signed(0.00004), "0.0000"),
        (signed(-0.0004), "−0.0004"),
        (signed(None), "–"),
        (percent(0.0823), "8.2 %"),
        (percent(-0.5, 0, True), "−50 %"),
        (count(1234567), "1,234,567"),
        (plural(1, "pair"), "1 pair"),
        (interval(None, 1.0), ""),
        (duration(0.34), "0.3 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(247), "4 min 07 s"),
        (duration(7980), "2 h 13 min"),
        (reasons({"too short": 12, "none": 0, "unknown": 3000}), "12 too short, 3,000 unknown"),
    ],
)
def test_numbers_are_printed_as_people_write_them(text: str, expected: str):
    assert text == expected


@pytest.mark.parametrize(
    ("own", "other", "alarmed"),
    [
        ((0.002, 0.018), (-0.018, -0.002), True),
        ((0.002, 0.018), (-0.008, 0.012), False),
        ((-0.008, 0.012), (-0.018, -0.002), False),
        ((0.002, 0.018), (0.002, 0.018), False),
    ],
)
def test_an_alarm_sounds_where_an_independent_recommender_loses_what_the_rewarding_one_gains(
    own, other, alarmed
):
    shift = (sum(other) / 2, *other)
    told = line("Aligned, other", "aligned", "greedy", "independent", 0.2, "Base, other", shift)
    both = [table(*own), pl.DataFrame([told], schema=RESULTS, orient="row")]
    said = opened(pl.concat(both)).notes[1]
    assert said.startswith("Alarm") == alarmed
    assert (
        f"{signed(shift[0])} with greedy texts {interval(other[0], other[1], with_sign=True)}"
        in said
    )


def test_re_ranked_lists_are_told_in_ndcg_at_5_and_against_the_reranker_without_texts():
    shift, given = (0.02, 0.01, 0.03), {"metric": RERANKED_NDCG}
    lines = [
        line("SASRec's order", "none", "none", "sasrec", 0.2, "PRM", (-0.1, -0.2, 0.0), **given),
        line("PRM", "none", "none", "prm", 0.3, **given),
        line("Base", "base", "greedy", "frozen", 0.31, "PRM", shift, **given),
        line("Aligned", "aligned", "greedy", "frozen", 0.33, "Base", shift, **given),
    ]
    told = opened(pl.DataFrame(lines, schema=RESULTS, orient="row"))
    assert told.verdict == "Alignment improved NDCG@5 on 500 test users."
    assert any("Without any text the recommender reaches 0.3000" in note for note in told.notes)
    assert any("greedy texts change that by +0.0200" in note for note in told.notes)
    assert [card.name for card in told.cards] == ["NDCG@5, re-ranked lists"]
