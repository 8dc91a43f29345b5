"""RosePO's page says what the tables hold, and no more."""

from dataclasses import replace

import polars as pl
import pytest

from recalign.metric_columns import CATALOGUE, NDCG_AT_10, Metric, told_intervals
from recalign.report.result_lines import difference_cell, headline_metrics, metric_cards
from recalign.report.rosepo import rosepo_page
from recalign.report.rosepo_opening import HELPFUL, LIFT, opening, verdict
from recalign.report.tradeoff import tradeoff
from recalign.report.wording import VERDICTS, signed, tone_of
from tests.report.sample_pages import (
    HINDSIGHT_LINES,
    QUESTION,
    ROSEPO_RESULTS,
    cell,
    contrasts,
    data_set,
    rosepo_run,
    table,
)


@pytest.mark.parametrize(
    ("low", "high", "answer", "said"),
    [
        (0.01, 0.03, "Yes, a gain is shown", "a gain"),
        (-0.03, -0.01, "No, a loss is shown", "a loss"),
        (-0.01, 0.03, "No difference is shown", "no difference shown"),
        (0.0, 0.03, "No difference is shown", "no difference shown"),
    ],
)
def test_an_answer_claims_only_what_its_interval_allows(low, high, answer, said):
    first = opening(contrasts((low, high)), data_set(), {"self_hard": 400})
    assert first.verdict == f"{QUESTION} {answer} in HR@1 of the candidate lists."
    assert first.claims is not None
    (claim,) = first.claims.rows
    assert claim[0].text == QUESTION
    assert claim[0].below == "hard, eps, against hard, no eps"
    assert claim[3].text == said


def test_several_answers_are_counted_by_what_each_shows():
    answers = contrasts((0.01, 0.03), (-0.01, 0.03), (0.0, 0.1), (-0.2, -0.1)).to_dicts()
    assert verdict(answers) == (
        f"{QUESTION} Of 4 comparisons in HR@1 of the candidate lists 1 show a gain, 1 a loss, "
        "and 2 no difference."
    )


def test_of_a_handful_of_users_no_claim_is_answered():
    five = pl.lit(5, pl.Int64).alias("n_users")
    few = told_intervals(contrasts((0.01, 0.03), (0.02, 0.04)).with_columns(five))
    assert verdict(few.to_dicts()[:1]) == (
        f"{QUESTION} Too few users to tell in HR@1 of the candidate lists."
    )
    assert verdict(few.to_dicts()).endswith(
        "0 no difference, of 2 there are too few users to tell."
    )
    results = ROSEPO_RESULTS.with_columns(five)
    assert tradeoff(told_intervals(results), HELPFUL, LIFT) is None
    run = replace(rosepo_run(), results=results, contrasts=contrasts((0.01, 0.03)))
    page = rosepo_page(replace(run, contrasts=run.contrasts.with_columns(five)))
    assert "Too few users to tell" in page.opening.verdict
    assert {card.tone for card in page.opening.cards} == {""}


def test_less_popularity_is_better_and_more_is_worse():
    def line(measure, low, high):
        bounds = {"difference_low": low, "difference_high": high}
        return {"measure": measure, "mean": 0.5, "difference": (low + high) / 2} | bounds

    assert tone_of(line("HR", 0.1, 0.2)) == tone_of(line("popularity lift", -0.2, -0.1)) == "better"
    assert tone_of(line("HR", -0.2, -0.1)) == tone_of(line("popularity lift", 0.1, 0.2)) == "worse"
    assert tone_of(line("popularity lift", -0.1, 0.0)) == "same"


@pytest.mark.parametrize(
    ("mean", "base", "tone"),
    [(0.3, 0.5, "better"), (0.05, 0.2, "better"), (-0.1, 0.1, ""), (-0.3, -0.1, ""),
     (0.1, -0.1, ""), (0.6, 0.5, "worse")],
)  # fmt: skip
def test_less_popularity_than_was_taken_is_no_gain_and_a_lift_has_no_percentage(mean, base, tone):
    change = mean - base
    told = table(cell("hard, eps", LIFT, mean, change, change - 0.01, change + 0.01, "SFT"))
    shown = difference_cell(told.to_dicts()[0])
    assert (shown.text, shown.tone) == (signed(change), tone)
    (card,) = metric_cards(told.to_dicts())
    assert card.tone == tone
    assert card.change == signed(change) + (f": {VERDICTS[tone]}" if tone else "")


def test_the_page_opens_with_what_was_run_and_the_terms_it_uses():
    first = opening(contrasts((0, 1)), data_set(), {"self_hard": 1400})
    assert "48 interactions of 2 users and 30 items (toys)" in first.lede
    assert "(self_hard: 1,400 pairs, held-out ones included)" in first.lede
    assert "eps is the oracle's estimate" in first.lede
    (terms,) = first.notes
    for term in ("Candidate lists", "HR@1", "eps", "SFT continued", "popularity lift"):
        assert term.lower() in terms.lower()


def test_the_main_table_shows_ndcg_and_popularity_lift_beside_the_hit_rate():
    names = [("HR", 1), ("HR", 5), ("HR", 10), ("NDCG", 5), ("NDCG", 10), ("MRR", None)]
    full = [*(Metric(CATALOGUE, *name) for name in names), LIFT]
    shown = headline_metrics(table(*(cell("SFT", one, 0.1) for one in full)), full[0], CATALOGUE)
    assert [one.label for one in shown] == [
        "HR@1", "HR@10", "NDCG@10", "popularity lift", "NDCG@5"
    ]  # fmt: skip


def test_the_sections_hold_claims_trade_off_validation_pairs_and_eps():
    named = {section.short: section for section in rosepo_page(rosepo_run()).sections}
    claim = named["Claims"].grids[0]
    assert (claim.title, claim.rows[0][0].below) == (QUESTION, "against hard, no eps")
    assert claim.rows[0][1].text == "+0.0200 (+6.7 %)"
    gains = {row[0].text: row[2].text for row in named["Validation"].grids[0].rows}
    assert gains == {"Popularity": "−50.0 %", "SFT": "", "hard, eps": "+10.0 %"}
    assert [one.text for one in named["Pairs"].grids[0].rows[0]] == ["self_hard", "0.2500", "400"]
    assert named["eps"].grids[0].rows[0][1].text == "–"
    later = [(one.text, one.below) for one in named["eps"].grids[1].rows[0]]
    assert later[3:] == [
        ("5.0 %", ""), ("0.6100", "[0.5800, 0.6400]"), ("0.5500", ""),
        ("+0.0800", "[+0.0500, +0.1100]"),
    ]  # fmt: skip
    few = HINDSIGHT_LINES.with_columns(n_users=pl.lit(9, pl.Int64))
    named = {one.short: one for one in rosepo_page(replace(rosepo_run(), hindsight=few)).sections}
    below = [one.below for one in named["eps"].grids[1].rows[0]]
    assert below[3:] == ["", "too few users", "", "too few users"]
    assert len(named["Trade-off"].figures) == 2
    assert "over users; more lift above 0 is more harm." in named["Claims"].note
    assert named["Trade-off"].note.endswith("avoided; of popularity lift only above 0.")
    assert named["Trade-off"].grids[0].note == (
        "Popularity lift: mean log(1 + popularity) of what is recommended, minus the target's."
    )


@pytest.mark.parametrize(
    ("ranked", "header"),
    [
        (("Popularity", "SFT", "hard, eps"), "Validation NDCG@10"),
        (("Popularity",), "Validation NDCG@10 (list)"),  # LLMs that pick from titles they are shown
    ],
)
def test_the_validation_says_the_metric_that_all_rows_have(ranked, header):
    run = rosepo_run()
    catalogue = table(*(cell(row, NDCG_AT_10, 0.1) for row in ranked))
    page = rosepo_page(replace(run, results=pl.concat([run.results, catalogue])))
    named = {section.short: section for section in page.sections}
    assert named["Validation"].grids[0].header[1] == header


def test_a_gain_over_a_validation_of_nothing_is_left_out():
    run = rosepo_run()
    nothing = replace(run, validation={**run.validation, "SFT": 0.0})
    named = {section.short: section for section in rosepo_page(nothing).sections}
    assert {row[2].text for row in named["Validation"].grids[0].rows} == {""}


def test_segments_show_the_answer_to_the_first_question_and_how_many_users_it_is_about():
    named = {section.short: section for section in rosepo_page(rosepo_run()).sections}
    (grid,) = named["Segments"].grids
    assert grid.header == ["Users", "hard, eps", "against hard, no eps"]
    first = [(one.text, one.below, one.tone) for one in grid.rows[0]]
    assert first == [
        ("niche", "30 users by taste", ""),
        ("0.3000", "[0.2900, 0.3100]", ""),
        ("+0.0200 (+6.7 %)", "[+0.0100, +0.0300]", "better"),
    ]
    assert [row[0].text for row in grid.rows] == ["niche", "long"]


def test_the_trade_off_leaves_popularity_out_and_names_the_baselines():
    svg = tradeoff(ROSEPO_RESULTS, HELPFUL, LIFT) or ""
    assert ">SFT<" in svg
    assert ">Popularity<" not in svg
    assert "self_hard" in svg


def test_no_trade_off_is_drawn_of_what_was_not_measured():
    assert tradeoff(ROSEPO_RESULTS, HELPFUL, Metric(CATALOGUE, "novelty")) is None


def test_pairs_and_steps_stand_beside_the_metrics_and_an_unequal_budget_is_said():
    sections = {section.short: section for section in rosepo_page(rosepo_run()).sections}
    grid = sections["Results"].grids[0]
    assert grid.header[-2:] == ["Pairs", "Steps"]
    spent = {row[0].text: row[-2:] for row in grid.rows}
    assert [one.text for one in spent["SFT"]] == ["", ""]
    assert [one.text for one in spent["hard, eps"]] == ["1,300", "84"]
    assert spent["hard, eps"][1].below == "kept: step 56 of 70"
    assert sections["Claims"].note.endswith("1200 pairs and 80 steps, hard, eps 1300 and 84.")


def test_where_llms_searched_by_beam_it_is_said_that_the_others_did_not():
    whole, searched = (rosepo_page(replace(rosepo_run(), beam=beam)) for beam in (0, 10))
    assert "beam" not in whole.sections[0].note
    assert "LLMs found the best 10 titles of the catalogue by beam search" in (
        searched.sections[0].note
    )
