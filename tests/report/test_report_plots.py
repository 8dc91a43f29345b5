"""Plots show the numbers they are given; the lineage graph is layered and reduced."""

import re

import numpy as np
import polars as pl

from recalign.artifacts.manifest import Reference
from recalign.metric_columns import NDCG_AT_10, Metric
from recalign.report import lineage
from recalign.report.content import Round, StageRun
from recalign.report.drawing import GREY, PETROL, RUST
from recalign.report.forest import forest
from recalign.report.lineage import lineage_graph
from recalign.report.plots import alignment_curves, distributions, windows_picture
from recalign.report.wording import interval, tone_of
from recalign.schemas import RESULTS, WINDOWS
from tests.report.sample_pages import manifest

REST = (None, None)  # strategy and estimator
HR_AT_10 = Metric("catalogue", "HR", 10)


def texts_of(svg: str) -> list[str]:
    return [re.sub(r"\s+", " ", text).strip() for text in re.findall(r"<text[^>]*>([^<]*)<", svg)]


def run(name: str, *inputs: str, label: str = "") -> StageRun:
    made = manifest("stage", name)
    made.inputs = {one: Reference(stage="stage", fingerprint=one) for one in inputs}
    return StageRun(label or name, made)


def test_windows_show_their_mean_lengths_over_prompted_users():
    windows = pl.DataFrame(
        [(0, 10, 12, 15, 16, 18, True), (1, 21, 24, 28, 30, 33, True), (2, 1, 2, 3, 4, 90, False)],
        schema=WINDOWS, orient="row",
    )  # fmt: skip
    shown = texts_of(windows_picture(windows))
    assert {"history", "fit", "reward", "valid", "test"} <= set(shown)
    assert [text for text in shown if "." in text] == ["15.5", "2.5", "3.5", "1.5", "2.5"]


def test_forest_has_a_line_per_compared_row_but_none_for_popularity():
    rows = [
        ("Popularity", "none", "none", "popularity", *REST, *NDCG_AT_10, 0.0, 0.0, 0.0, "b",
         -0.9, -1.0, -0.8, -0.9, 9),
        ("b", "none", "none", "sasrec", *REST, *NDCG_AT_10, 0.1, 0.1, 0.1, *(None,) * 5, 9),
        ("c $x$", "base", "greedy", "frozen", *REST, *NDCG_AT_10, 0.1, 0.1, 0.1, "b",
         0.01, -0.01, 0.03, 0.1, 9),
        ("d", "base", "greedy", "frozen", *REST, *HR_AT_10, 0.1, 0.1, 0.1, "b",
         0.01, -0.01, 0.03, 0.1, 9),
    ]  # fmt: skip
    results = pl.DataFrame(rows, schema=RESULTS, orient="row")
    shown = texts_of(forest(results, NDCG_AT_10) or "")
    assert {"c $x$", "+0.0100"} <= set(shown)
    assert not {"Popularity", "b", "d"} & set(shown)
    assert forest(results, Metric("catalogue", "MRR", 10)) is None


def told(low: float, high: float) -> str:
    return tone_of({"measure": "NDCG", "difference_low": low, "difference_high": high})


def test_tones_tell_gain_loss_and_neither():
    assert told(0.1, 0.2) == "better"
    assert told(-0.2, -0.1) == "worse"
    assert told(0.0, 0.2) == told(-0.2, 0.0) == told(-1, 1) == "same"


def test_a_tone_does_not_contradict_the_bounds_printed_beside_it():
    assert (interval(-0.01, -4e-5, True), told(-0.01, -4e-5)) == ("[−0.0100, 0.0000]", "same")
    assert (interval(-0.01, -6e-5, True), told(-0.01, -6e-5)) == ("[−0.0100, −0.0001]", "worse")


def test_the_forest_is_coloured_by_what_each_interval_shows():
    row = ("c", "base", "greedy", "frozen", *REST, *NDCG_AT_10, 0.1, 0.1, 0.1, "b")
    for low, high, colour in ((0.01, 0.03, PETROL), (-0.03, -0.01, RUST), (-0.01, 0.01, GREY)):
        line = (*row, (low + high) / 2, low, high, 0.1, 9)
        svg = forest(pl.DataFrame([line], schema=RESULTS, orient="row"), NDCG_AT_10) or ""
        others = {PETROL, RUST, GREY} - {colour}
        assert colour in svg
        assert not any(other in svg for other in others)


def test_alignment_panels_are_those_that_were_measured():
    curve = pl.DataFrame({"step": [0, 5], "loss": [0.7, 0.6], "held_out_loss": [0.7, None],
                          "accuracy": [None, None]},
                         schema_overrides={"accuracy": pl.Float64})  # fmt: skip
    (svg,) = alignment_curves([Round(1, curve=curve), Round(2)])
    assert {"Loss", "round 1", "round 1, held out"} <= set(texts_of(svg))
    assert alignment_curves([Round(1)]) == []


def test_distributions_bear_constant_values_and_leave_out_infinite_ones():
    svg = distributions({"a": np.full(9, 0.5), "b": np.array([0.25, np.nan, np.inf])}, "T", "x")
    assert {"a (mean 0.500)", "b (mean 0.250)"} <= set(texts_of(svg))


def test_two_plots_do_not_share_ids():
    values = {"a": np.linspace(0, 1, 9)}
    first, second = (set(re.findall(r'id="([^"]+)"', distributions(values, t, "x"))) for t in "AB")
    assert first
    assert not first & second


def test_an_input_reached_through_another_input_has_no_line_of_its_own():
    svg = lineage_graph([run("a"), run("b", "a"), run("c", "a", "b")]) or ""
    assert svg.count("<path") == 2
    assert svg.count("<a href") == 3


def test_edge_over_two_layers_passes_between_them():
    # a -> b -> c -> d and e -> d: e is reached through nothing else; its line passes two layers.
    svg = (
        lineage_graph([run("a"), run("b", "a"), run("c", "b"), run("e"), run("d", "c", "e")]) or ""
    )
    assert svg.count("<path") == 3 + 3


def test_boxes_of_one_layer_do_not_overlap():
    stages = [run("a"), run("z")]
    stages += [run(f"b{n}", "a" if n % 3 else "z") for n in range(7)]
    stages += [run(f"c{n}", f"b{n}", f"b{6 - n}") for n in range(4)]
    svg = lineage_graph(stages) or ""
    width = float(re.findall(r'width="([\d.]+)"', svg)[0])
    boxes = [
        (float(y), float(x))
        for x, y in re.findall(rf'<rect x="([-\d.]+)" y="([-\d.]+)" width="{lineage.BOX}"', svg)
    ]
    assert len(boxes) == len(stages)
    assert all(0 <= x <= width - lineage.BOX for _, x in boxes)
    for (y, x), (next_y, next_x) in zip(sorted(boxes), sorted(boxes)[1:], strict=False):
        assert y < next_y or next_x - x >= lineage.BOX


def test_inputs_that_are_not_on_the_page_are_left_out_of_the_graph():
    svg = lineage_graph([run("a", "elsewhere")]) or ""
    assert svg.count("<path") == 0
    assert lineage_graph([]) is None


def test_a_box_tells_what_it_is_then_which_and_how_long():
    svg = lineage_graph([run("a", label="fit, round <1>")]) or ""
    assert texts_of(svg) == ["fit", "round &lt;1&gt; · 1.0 s"]
