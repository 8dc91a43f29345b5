"""The page: self-contained, escaped, the same bytes for the same content, whole without parts."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recalign.errors import BadInputError
from recalign.metric_columns import NDCG_AT_10, Metric
from recalign.report.content import DataSet, Example, ReportContent, Round, StageRun
from recalign.report.page import render, write_report
from recalign.schemas import FACETS, RECOMMENDED, RESULTS, TEXTS, WINDOWS

NASTY = '<script>alert("x")</script> & $a_b$ {{ 7*7 }}'


def results(low: float = 0.001, high: float = 0.005) -> pl.DataFrame:
    rows = []
    measured = (NDCG_AT_10, Metric("catalogue", "HR", 10), Metric("uniform", "NDCG", 5))
    for metric in ((None, None, *one) for one in measured):  # after strategy and estimator
        rows += [
            ("SASRec, no reasoning", "none", "none", "sasrec", *metric, 0.065, 0.06, 0.07)
            + (None,) * 5 + (900,),
            ("Base policy, greedy", "base", "greedy", "frozen", *metric, 0.074, 0.07, 0.078,
             "SASRec, no reasoning", 0.009, 0.006, 0.012, 0.138, 900),
            ("Aligned policy, greedy", "aligned", "greedy", "frozen", *metric, 0.077, 0.073, 0.081,
             "Base policy, greedy", 0.003, low, high, 0.04, 900),
        ]  # fmt: skip
    return pl.DataFrame(rows, schema=RESULTS, orient="row")


def full_content(text: str = "plain") -> ReportContent:
    windows = pl.DataFrame([(0, 10, 12, 15, 16, 18, True), (1, 20, 22, 25, 26, 30, True)],
                           schema=WINDOWS, orient="row")  # fmt: skip
    curve = pl.DataFrame({"step": [0, 1, 2], "loss": [0.7, 0.6, 0.5],
                          "held_out_loss": [0.69, None, 0.6]})  # fmt: skip
    stages = [
        StageRun("interactions", "interactions", "a" * 32, 1, {}, "today", 1.0, 100,
                 {text: 3}, "cpu", 10.0, "abc", {"torch": "2.13"}),
        StageRun("report", f"report, {text}", "b" * 32, 2, {"interactions": "a" * 32}, "today",
                 2.0, 0, {}, "cpu", 10.0, "abc", {"torch": text}),
    ]  # fmt: skip
    rewards = np.linspace(0, 1, 50)
    return ReportContent(
        title=text,
        created=text,
        results=results().with_columns(pl.col("row").str.replace("SASRec", text, literal=True),
                                       pl.col("base").str.replace("SASRec", text, literal=True)),
        data=DataSet(text, 2, 30, 48, {text: 1}, windows, 2),
        stages=stages,
        oracle_curve=pl.DataFrame({"epoch": [1, 2], "loss": [5.0, 4.0],
                                   "valid_ndcg_at_10": [0.1, 0.2]}),
        bootstrap_curve=curve,
        rounds=[Round(0, 0.2), Round(1, 0.21, True, curve, rewards, rewards / 9, 50, 40, 0.02,
                                     {text: 10})],
        texts=pl.DataFrame([(text, 2, 4, 9.0, 11.0, 0.5, 1.0, 0.75)], schema=TEXTS, orient="row"),
        facets=pl.DataFrame([(text, "genre", 1.0, None, 0.5, 2)], schema=FACETS, orient="row"),
        malformed={text: {text: 1}},
        recommended=pl.DataFrame([(text, 0.5, 0.1, 90.0, 0.3)], schema=RECOMMENDED, orient="row"),
        examples=[Example(text, [text], text, text, [text], 0.1, 0.2, text)],
    )  # fmt: skip


class Page(HTMLParser):
    """Open and closed tags, ids and whatever could make a request."""

    VOID = ("meta", "link", "img", "br", "hr", "input", "col", "source", "base")

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"])
        self.references += [given[n] for n in ("src", "href", "xlink:href", "action") if n in given]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)


@pytest.fixture(scope="module")
def page() -> str:
    return render(full_content())


def test_page_is_well_formed_and_every_id_is_its_own(page: str):
    parsed = Page(page)
    assert parsed.mismatched == []
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))


def test_page_makes_no_request_and_runs_no_script(page: str):
    parsed = Page(page)
    assert not parsed.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert all(reference.startswith("#") for reference in parsed.references)
    assert not re.search(r"@import|url\((?!#)", page)
    assert set(re.findall(r"https?://[^\"' )<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_link_leads_to_a_place_on_the_page(page: str):
    parsed = Page(page)
    assert {"#data", "#results", "#lineage", "#artifact-" + "a" * 32} <= set(parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)


def test_all_text_of_the_content_is_escaped():
    nasty = render(full_content(NASTY))
    assert "<script" not in nasty
    assert "&lt;script&gt;" in nasty
    assert "{{ 7*7 }}" in nasty
    parsed = Page(nasty)
    assert parsed.mismatched == []
    assert "script" not in parsed.tags


def test_equal_content_gives_equal_bytes_in_another_process(page: str, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from test_report_page import full_content, write_report;"
        "write_report(full_content(), Path(sys.argv[2]))"
    )
    target = tmp_path / "page.html"
    roots = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(target)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": roots},
    )
    assert target.read_text(encoding="utf-8") == page


def test_different_numbers_give_a_different_page(page: str):
    changed = replace(full_content(), results=results(low=0.002))
    assert render(changed) != page


SECTIONS = {
    "data": "What went in", "stages": "What each stage did", "results": "Results on the test",
    "oracle_curve": "Training the oracle", "bootstrap_curve": "Training the oracle",
    "rounds": "Rounds of alignment", "texts": "The texts themselves", "facets": "Against the truth",
    "examples": "Examples",
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_each_part_alone_makes_its_section_and_no_other(name: str):
    content = ReportContent("title", "now", **{name: getattr(full_content(), name)})
    text = render(content)
    assert Page(text).mismatched == []
    shown = {heading for heading in SECTIONS.values() if heading in text}
    expected = {SECTIONS[name]} | ({"The texts themselves"} if name == "facets" else set())
    assert shown == expected


def test_nothing_at_all_still_makes_a_page(tmp_path: Path):
    path = write_report(ReportContent("title", "now"), tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    assert "<h1>title</h1>" in text
    assert "<section" not in text


def test_list_too_short_for_the_primary_metric_is_compared_by_another(page: str):
    lists = page[page.index("<h3>Candidate lists</h3>") :]
    header = lists[lists.index("<thead>") : lists.index("</thead>")]
    assert "<th>NDCG@5</th><th>Difference</th>" in header


def test_figures_stand_in_the_tables(page: str):
    assert "0.0770<small>[0.0730, 0.0810]</small>" in page
    assert "+0.0030 (+4.0 %)<small>[+0.0010, +0.0050]</small>" in page
    assert "1 (kept)" in page


def test_results_without_their_columns_are_refused():
    with pytest.raises(BadInputError, match="difference_low"):
        render(ReportContent("title", "now", results=results().drop("difference_low")))
