"""One artifact's Markdown page: what its manifest tells, tables that hold any text, pictures."""

import base64
from datetime import UTC, datetime

import numpy as np
import polars as pl

from recalign.artifacts.manifest import Manifest, Reference
from recalign.metric_columns import NDCG_AT_10, Metric
from recalign.report.plots import distributions
from recalign.report.result_lines import result_lines
from recalign.report.stage_page import picture, stage_page, table_section
from recalign.schemas import RESULTS

REST = (None, None)  # strategy and estimator
HR_AT_10 = Metric("catalogue", "HR", 10)
MANIFEST = Manifest(
    stage="pairs", version=1, fingerprint="0123456789abcdef", config={"min_margin": 0.25},
    inputs={"rewards": Reference(stage="rewards", fingerprint="f" * 32)}, rows=1234,
    dropped={"fewer than two usable texts": 15},
    figures={"tie_rate": 0.123456, "nested": {"a": 2}, "none": {}, "exact": True},
    created=datetime(2026, 11, 21, 2, 3, tzinfo=UTC), seconds=61, device="cpu",
)  # fmt: skip


def test_a_page_tells_counts_reasons_figures_settings_and_inputs():
    page = stage_page(MANIFEST, ["a section"])
    for text in (
        "**1,234 rows** in `pairs/0123456789`, computed in 1 min 01 s on cpu (2026-11-21 02:03",
        "Left out: 15 fewer than two usable texts.", "a section",
        "| tie\\_rate | 0.1235 |", "| nested | a: 2 |", "| exact | True |",
        "min_margin = 0.25", "rewards: `rewards/ffffffffff`",
    ):  # fmt: skip
        assert text in page
    assert "none" not in page


def test_a_picture_is_the_whole_svg_on_paper_in_one_line():
    svg = distributions({"a": np.array([0.1, 0.2])}, "Margins [x]", "nats")
    image = picture(svg)
    name, _, data = image.removesuffix(")").partition("](data:image/svg+xml;base64,")
    assert name == "![Margins \\[x\\]"
    drawn = base64.b64decode(data).decode()
    assert drawn.replace("background:#fcfbf8;", "", 1) == svg
    assert drawn.count("background:#fcfbf8;") == 1
    assert 'xmlns="http://www.w3.org/2000/svg"' in drawn
    assert "\n" not in image


def test_a_table_bears_markup_and_line_breaks_in_its_texts():
    table = pl.DataFrame({"text": ["a|b\n*c*"], "margin": [0.5]})
    assert table_section("T", table).splitlines()[-1] == "| a\\|b \\*c\\* | 0.5 |"
    assert table_section("T", table.head(0)) == ""


def test_the_plain_result_table_has_the_interval_of_each_row_and_of_its_difference():
    rows = [
        ("SASRec", "none", "none", "sasrec", *REST, *NDCG_AT_10, 0.1, 0.09, 0.11, *(None,) * 5, 90),
        ("Base", "base", "greedy", "frozen", *REST, *NDCG_AT_10, 0.12, 0.1, 0.14, "SASRec",
         0.02, 0.01, 0.03, 0.2, 90),
        ("Base", "base", "greedy", "frozen", *REST, *HR_AT_10, 0.5, 0.4, 0.6, "SASRec",
         0.02, 0.01, 0.03, 0.2, 90),
    ]  # fmt: skip
    results = pl.DataFrame(rows, schema=RESULTS, orient="row")
    first, second = result_lines(results)
    assert first == {
        "row": "SASRec", "NDCG@10": "0.1000", "95 % interval": "[0.0900, 0.1100]", "difference": "",
        "its 95 % interval": "", "against": "",
    }  # fmt: skip
    assert second["difference"] == "+0.0200"
    assert second["its 95 % interval"] == "[+0.0100, +0.0300]"
    assert second["against"] == "SASRec"
    few = result_lines(results.with_columns(n_users=pl.lit(9, pl.Int64)))
    assert [line["95 % interval"] for line in few] == ["too few users"] * 2
    assert [line["its 95 % interval"] for line in few] == ["", "too few users"]
