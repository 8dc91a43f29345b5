"""The page: self-contained, escaped, the same bytes for the same content, whole without parts."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from recalign.errors import BadInputError
from recalign.report.content import Opening
from recalign.report.content import Page as ReportPage
from recalign.report.dpo4rec import dpo4rec_page
from recalign.report.drawing import THEME
from recalign.report.page import render, write_page
from recalign.report.rosepo import rosepo_page
from recalign.report.wording import reward_name
from tests.report.sample_pages import dpo4rec_run, results, rosepo_run

NASTY = '<script>alert("x")</script> & $a_b$ {{ 7*7 }}'


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
    return render(dpo4rec_page(dpo4rec_run()))


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def style(page: str) -> str:
    return page[page.index("<style>") : page.index("</style>")]


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


def test_the_page_says_whose_memory_stands_beside_a_stage(page: str):
    assert "Memory: the most that the process had held by then, earlier stages included." in page


def test_what_a_gpu_held_is_told_apart_from_the_process():
    run = dpo4rec_run()
    run.stages[1].manifest.device = "NVIDIA H200"
    run.stages[1].manifest.peak_gpu_memory_mb = 30_720.4
    page = render(dpo4rec_page(run))
    assert "NVIDIA H200, 10 MB, 30,720 MB on the GPU</small>" in page
    assert "earlier stages included; on a GPU, what torch had held there." in page


def test_every_link_leads_to_a_place_on_the_page(page: str):
    parsed = Page(page)
    assert {"#section-1", "#stages", "#artifact-" + "a" * 32} <= set(parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)


def test_all_text_of_the_content_is_escaped():
    nasty = render(dpo4rec_page(dpo4rec_run(NASTY)))
    assert "<script" not in nasty
    assert "&lt;script&gt;" in nasty
    assert "{{ 7*7 }}" in nasty
    parsed = Page(nasty)
    assert parsed.mismatched == []
    assert "script" not in parsed.tags


def test_equal_content_gives_equal_bytes_in_another_process(page: str, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path;"
        "from recalign.report.dpo4rec import dpo4rec_page;"
        "from recalign.report.page import write_page;"
        "from tests.report.sample_pages import dpo4rec_run;"
        "write_page(dpo4rec_page(dpo4rec_run()), Path(sys.argv[1]))"
    )
    target = tmp_path / "page.html"
    roots = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-c", code, str(target)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": roots},
    )
    assert target.read_text(encoding="utf-8") == page


def test_different_numbers_give_a_different_page(page: str):
    changed = replace(dpo4rec_run(), results=results(low=0.002))
    assert render(dpo4rec_page(changed)) != page


def test_dpo4rec_opens_with_the_verdict_and_its_picture_and_ends_with_the_stages(page: str):
    body = page[page.index("<main>") :]
    opening = [body.index(part) for part in ('class="verdict', "<svg", 'class="cards', "<h2>")]
    assert opening == sorted(opening)
    assert headings(page) == [
        "Results on the test window", "Who gains", "Rounds of alignment",
        "Training of the recommender and of the first policy", "What the policies wrote",
        "Examples", "What went in", "Every stage, and what it was made from",
    ]  # fmt: skip
    assert page.count("artifact-" + "b" * 32) == 2  # a box leads to a line


def test_rosepo_opens_with_the_verdict_its_picture_and_every_claim_and_ends_with_the_stages():
    page = render(rosepo_page(rosepo_run()))
    body = page[page.index("<main>") :]
    parts = ('class="verdict', "<svg", 'class="cards', "<th>Verdict</th>", "<h2>")
    opening = [body.index(part) for part in parts]
    assert opening == sorted(opening)
    assert headings(page) == [
        "Results on the test window", "Claim by claim", "Who gains", "Helpful against harmless",
        "Chosen by validation", "Training of the recommender and of the fine-tuned model",
        "Items chosen and rejected",
        "How sure the oracle is that a rejected item is really preferred (eps)", "What went in",
        "Every stage, and what it was made from",
    ]  # fmt: skip
    assert Page(page).mismatched == []


def test_grey_is_not_said_to_show_that_nothing_differs(page: str):
    assert "grey: no difference is shown" in page


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"reward": "log_prob", "k": 10}, "log-probability, nats"),
        ({"reward": "ndcg_at_k", "k": 5}, "NDCG@5"),
        ({"reward": "map_at_k", "k": 5}, "MAP@5"),
        ({"reward": "hr_at_k", "k": 10}, "HR@10"),
        ({"reward": "ndcg_full"}, "NDCG"),
    ],
)
def test_axes_and_titles_of_rewards_carry_the_name_of_the_reward(settings, name):
    run = replace(dpo4rec_run(), reward=reward_name(settings))
    (rounds,) = [one for one in dpo4rec_page(run).sections if one.short == "Rounds"]
    shown = [re.findall(r"<text[^>]*>([^<]*)<", figure.svg) for figure in rounds.figures]
    rewards = next(texts for texts in shown if f"Rewards: {name}" in texts)
    margins = next(texts for texts in shown if f"Margins: {name}" in texts)
    assert name in rewards
    assert name in margins
    assert f"Mean reward ({name})" in rounds.grids[0].header


def test_the_page_is_made_for_phones_dark_rooms_and_paper(page: str):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    light, dark = style(page).split("@media screen and (prefers-color-scheme:dark)")
    dark = dark[: dark.index("}\n}")]
    assert "@media print" in style(page)
    for name, colour in THEME.items():
        assert f"--{name}:{colour}" in light
        assert f"--{name}:#" in dark
        assert f"--{name}:{colour}" not in dark


def test_every_colour_of_a_picture_may_be_that_of_the_page(page: str):
    pictures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    fixed = re.sub(r"var\(--[a-z]+,#[0-9a-f]{6}\)", "", pictures)
    assert "var(--petrol,#1d6078)" in pictures
    assert re.findall(r"#[0-9a-f]{6}\b", fixed) == []


def test_what_was_not_measured_has_no_section():
    bare = replace(dpo4rec_run(), stages=(), oracle_curve=None, policy_curve=None, examples=())
    text = render(dpo4rec_page(bare))
    assert headings(text) == [
        "Results on the test window", "Who gains", "Rounds of alignment",
        "What the policies wrote", "What went in",
    ]  # fmt: skip


def test_nothing_at_all_still_makes_a_page(tmp_path: Path):
    path = write_page(ReportPage("title", "now", Opening("nothing")), tmp_path / "page.html")
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


def test_a_segment_of_a_handful_of_users_has_figures_but_no_interval_and_no_colour():
    run = dpo4rec_run()
    few = pl.when(segment="niche").then(5).otherwise("n_users").alias("n_users")
    page = dpo4rec_page(replace(run, segments=run.segments.with_columns(few)))
    (section,) = [one for one in page.sections if one.short == "Segments"]
    niche, long = section.grids[0].rows
    assert {cell.below for cell in niche[1:]} == {"too few users"}
    assert {cell.tone for cell in niche[1:]} == {""}
    assert niche[-1].text.startswith("+0.0030")
    assert (long[-1].below, long[-1].tone) == ("[+0.0010, +0.0050]", "better")
    assert "Of fewer than 10 users no interval is told" in section.note


def test_results_without_their_columns_are_refused():
    lacking = replace(dpo4rec_run(), results=results().drop("difference_low"))
    with pytest.raises(BadInputError, match="difference_low"):
        dpo4rec_page(lacking)
