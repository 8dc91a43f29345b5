"""A sweep's page: what it claims, what it leaves open, and that a user's words stay words."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from flows.sweep import in_one_line
from recalign.errors import NoSignalError
from recalign.metric_columns import NDCG_AT_10
from recalign.recommender.required import require_signal
from recalign.report.drawing import MUTED
from recalign.report.leaderboard import leaderboard_page
from recalign.report.page import render
from recalign.report.seed_plot import Spot, setting_plot
from tests.report.sample_pages import leaderboard_run
from tests.report.test_report_plots import texts_of


def opening(**changes):
    return leaderboard_page(leaderboard_run(**changes)).opening


def test_a_claim_is_made_only_where_it_stands_once_corrected_for_the_number_of_comparisons():
    assert opening(p_holm=0.04).verdict == (
        "alignment.beta=0.3: Aligned policy, greedy beats Base policy, greedy in NDCG@10 over "
        "4 other training seeds."
    )
    null = opening(p_holm=0.06)
    assert "is not shown to differ from Base policy, greedy" in null.verdict
    assert null.tone == null.cards[0].tone == "same"
    assert null.cards[0].meaning.endswith(
        "One of 0.0040 would be found in 80 % of such sweeps (at 5 %, before correction)."
    )
    assert "By seed +0.0010, +0.0030, +0.0020, +0.0040." in null.cards[0].meaning


def test_one_seed_makes_no_claim():
    one = opening(n_seeds=1)
    assert one.tone == ""
    assert one.cards[0].change == "one seed: no claim"


def test_of_a_handful_of_users_no_interval_is_told_and_no_claim_made():
    five, run = pl.lit(5, pl.Int64).alias("n_users"), leaderboard_run()
    tables = ("board", "comparisons", "confirmed")
    few = {name: getattr(run, name).with_columns(five) for name in tables}
    page = leaderboard_page(replace(run, **few))
    assert page.opening.verdict == (
        "How alignment.beta=0.3: Aligned policy, greedy differs from Base policy, greedy cannot be "
        "told on 5 users: they are too few for an interval."
    )
    assert page.opening.tone == ""
    told = {(card.tone, card.change, card.bounds) for card in page.opening.cards}
    assert told == {("", "too few users: no claim", "")}
    grids = {s.short: s.grids[0] for s in page.sections if s.grids}
    for name in ("Settings", "Comparisons", "Rows"):
        words = [cell for row in grids[name].rows for cell in row]
        assert not [cell for cell in words if cell.tone or "[" in cell.text + cell.below]
        assert "too few users" in {cell.below for cell in words}
    assert {row[place].text for row in grids["Comparisons"].rows for place in (4, 5, 6)} == {""}
    pictures = [page.opening.picture, *(one for s in page.sections for one in s.figures)]
    assert len(pictures) == 3
    assert not [one for one in pictures if one and "[" in "".join(texts_of(one.svg))]


def test_what_was_chosen_and_what_failed_is_said():
    page = opening()
    assert page.lede.endswith(
        "alignment.beta=0.3 was chosen by its validation on seed 0; the verdict and cards are over "
        "the other seeds, corrected for their own 2 comparisons; the tables are over all seeds."
    )
    run = leaderboard_run()
    alone = leaderboard_page(replace(run, confirmed=run.confirmed.clear())).opening
    assert alone.lede.endswith("on seed 0; the tables are over all seeds.")
    assert page.notes == ["Failed, and missing here: alignment.beta=0.3, seed 1: no signal <b>"]


def test_where_the_guard_ended_a_run_the_page_says_which_seeds_its_intervals_are_about():
    with pytest.raises(NoSignalError) as refused:
        require_signal(
            {"signal": False, "users": 98, "log_prob_real": -5.0, "log_prob_shuffled": -5.0,
             "log_prob_no_text": -5.0, "log_prob_difference": 0.0053, "log_prob_low": -0.0037,
             "log_prob_high": 0.0143}
        )  # fmt: skip
    run = leaderboard_run()
    failed = pl.col("error").is_not_null()
    told = pl.when(failed).then(pl.lit(in_one_line(refused.value)))
    page = leaderboard_page(replace(run, cells=run.cells.with_columns(error=told))).opening
    missing, selected = page.notes
    assert missing.startswith("Failed, and missing here: alignment.beta=0.3, seed 1: the recomm")
    assert "about the training seeds whose texts passed it" in selected


def test_settings_that_share_no_seed_are_said_not_to_be_compared():
    run = leaderboard_run()
    first = run.settings[0].label
    moved = pl.when(setting=first).then(pl.col("seed") + 100).otherwise(pl.col("seed"))
    apart = replace(run, cells=run.cells.with_columns(moved.alias("seed")))
    told = f"Not compared with {first}: no other setting was run with one of its training seeds"
    page = leaderboard_page(replace(apart, comparisons=run.comparisons.clear()))
    assert told in page.opening.notes
    assert told not in leaderboard_page(run).opening.notes
    rows = page.sections[0].grids[0].rows
    assert [row[3].below for row in rows] == [
        "the others are compared with it", "no training seed in common",
    ]  # fmt: skip


def test_a_validation_says_its_metric_and_where_they_differ_that_nothing_was_chosen():
    run = leaderboard_run()
    listed = NDCG_AT_10._replace(lists="uniform")
    mixed = dict(zip(run.validated_by, (NDCG_AT_10, listed), strict=True))
    page = leaderboard_page(
        replace(run, validated_by=mixed, chosen=None, confirmed=run.confirmed.clear())
    )
    assert page.opening.lede.endswith(
        "No setting was chosen: their validations are in different metrics (NDCG@10, list NDCG@10)."
    )
    assert page.opening.verdict == ""
    (grid,) = next(section for section in page.sections if section.short == "Runs").grids
    place = list(grid.header).index("Validation")
    told = {(row[0].text.split(",")[0], row[place].below) for row in grid.rows if row[place].text}
    assert told == {("alignment.beta=0.1", "NDCG@10"), ("alignment.beta=0.3", "list NDCG@10")}
    assert "No setting was chosen" not in leaderboard_page(run).opening.lede


def test_settings_without_a_validation_are_said_not_to_be_chosen_from():
    run = leaderboard_run()
    apart = replace(run, chosen=None, confirmed=run.confirmed.clear())
    assert "No setting was chosen" not in leaderboard_page(apart).opening.lede
    unjudged = run.cells.with_columns(validation=pl.lit(None, pl.Float64))
    page = leaderboard_page(replace(apart, cells=unjudged))
    assert page.opening.lede.endswith("No setting was chosen: validation was not judged.")


def test_a_setting_that_failed_on_the_seed_of_the_choice_is_named():
    run = leaderboard_run()
    first = run.settings[0].label
    missed = pl.when(setting=first, seed=0).then(None).otherwise(pl.col("validation"))
    page = leaderboard_page(replace(run, cells=run.cells.with_columns(missed.alias("validation"))))
    told = f"not chosen from, without a validation on that seed: {first}; "
    assert told in page.opening.lede
    assert "not chosen from" not in leaderboard_page(run).opening.lede


def test_settings_are_sorted_by_their_numbers_and_show_metrics_and_costs():
    (grid,) = next(s for s in leaderboard_page(leaderboard_run()).sections
                   if s.short == "Settings").grids  # fmt: skip
    assert grid.sorts
    header = list(grid.header)
    assert header[:4] == [
        "Setting",
        "NDCG@10",
        "against its own base",
        "against alignment.beta=0.1",
    ]
    first, second = grid.rows
    assert (first[0].order, second[0].order) == (0.1, 0.3)
    assert second[1].text == "0.0770"
    assert second[header.index("CPU time")].text == "5 min 00 s"
    assert second[header.index("Pairs")].text == "1,400"
    assert first[3].text == ""  # the others are compared with it


def test_a_row_that_is_the_same_in_every_setting_stands_once():
    (grid,) = next(s for s in leaderboard_page(leaderboard_run()).sections
                   if s.short == "Rows").grids  # fmt: skip
    names = [(row[0].text, row[0].below) for row in grid.rows]
    assert names.count(("Base policy, greedy", "every setting")) == 1
    assert ("Aligned policy, greedy", "alignment.beta=0.3") in names


def test_only_the_sorting_script_may_run_and_other_pages_have_none():
    html = render(leaderboard_page(leaderboard_run()))
    assert html.count("<script>") == 1
    assert "script-src 'sha256-" in html
    assert "no signal &lt;b&gt;" in html
    assert "other training seeds of the same data" in html


@pytest.mark.parametrize("values", [("alignment.loss=dpo", "alignment.loss=ipo"), ("a=1", "b=2")])
def test_settings_without_an_order_of_numbers_are_drawn_beside_each_other(values):
    run = leaderboard_run(values=values)
    picture = leaderboard_page(run).opening.picture
    assert picture is not None
    assert all(setting.label in picture.svg for setting in run.settings)


def test_the_name_of_a_setting_is_not_drawn_over_its_figures():
    spots = [Spot("rejections.strategy=semantic, x=y", n, n - 1, n + 1, [n]) for n in (1.0, 2.0)]
    svg = setting_plot(spots, "NDCG@10")
    written = re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>([^<]*)<', svg)
    heights = [float(y) for y, text in written if "semantic" in text or "[" in text]
    gaps = np.diff(sorted(heights))
    assert len(heights) == 2 * len(spots)
    assert gaps.min() > 10  # points: the letters have 8


@pytest.mark.parametrize("axis", ["", "beta"])
def test_a_difference_is_drawn_with_a_line_at_zero_and_a_mean_is_not(axis):
    spots = [Spot(f"beta={n}", n, n - 1, n + 1, [n], at=n) for n in (5.0, 6.0)]
    drawn = [setting_plot(spots, "NDCG@10", axis, differs=differs) for differs in (False, True)]
    dashes = [svg.count(f"{MUTED}); stroke-width: 0.9") for svg in drawn]
    assert dashes[1] == dashes[0] + 1


def test_every_seed_has_its_point():
    run = leaderboard_run()
    picture = leaderboard_page(run).opening.picture
    assert picture is not None
    aligned = NDCG_AT_10.lines(run.board).filter(pl.col("headline"))
    points = sum(len(one) for one in aligned["per_seed"])
    # A mean of each setting and a point of each seed: uses of the two round markers.
    assert picture.svg.count("<use ") >= points + aligned.height
