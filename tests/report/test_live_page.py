"""The page of a stage at work: share, time left, and the curve of what its notes begin with."""

import re

import pytest

from recalign.report.live_page import curve_picture, figure_of, live_page, seconds_left


@pytest.mark.parametrize(
    ("note", "figure"),
    [
        ("loss 2.310, margin 0.2", ("loss", 2.31)),
        ("held-out log-probability -5.25", ("held-out log-probability", -5.25)),
        ("1,234 tokens/s", None),
        ("users", None),
        ("", None),
    ],
)
def test_a_figure_at_the_beginning_of_a_note_is_read(note, figure):
    assert figure_of(note) == figure


def test_the_time_left_goes_by_the_speed_of_this_run_alone():
    assert seconds_left(30, 100, since=10, seconds=40) == 140  # 20 in 40 s, 70 to go
    assert seconds_left(10, 100, since=10, seconds=3) is None


def test_a_page_tells_share_time_left_and_note_and_draws_two_points_or_more():
    page = live_page(250, 1000, "loss 2.000", 90, [(1, 3.0), (250, 2.0)])
    assert page.startswith("**25 %**: 250 of 1,000, about 1 min 30 s left.\n\nloss 2.000\n\n![")
    assert "image" not in live_page(1, 1000, "loss 2.000", None, [(1, 2.0)])
    assert live_page(0, 0, "", None, []) == "**0 %**: 0 of 0.\n"


def test_a_curve_falls_where_its_values_do_and_stays_short():
    svg = curve_picture("loss", [(step, 1000 - step) for step in range(1000)])
    (points,) = re.findall(r'points="([^"]*)"', svg)
    heights = [float(point.partition(",")[2]) for point in points.split()]
    assert heights == sorted(heights)  # downward in SVG: y grows
    assert len(heights) == 400
    assert "loss: 1000 at first, 1 now, lowest 1" in svg
    assert "nan" not in curve_picture("loss", [(1, 2.0), (2, 2.0)])
