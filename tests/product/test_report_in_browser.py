"""The report in a headless Chromium: a phone's width, the dark, and no request to anywhere."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

from recalign.report.dpo4rec import dpo4rec_page
from recalign.report.leaderboard import leaderboard_page
from recalign.report.page import write_page
from recalign.report.rosepo import rosepo_page
from tests.report.sample_pages import dpo4rec_run, leaderboard_run, rosepo_run

CHROMIUM = shutil.which("chromium")
PAGES = {
    "dpo4rec": lambda: dpo4rec_page(dpo4rec_run()),
    "rosepo": lambda: rosepo_page(rosepo_run()),
    "sweep": lambda: leaderboard_page(leaderboard_run()),
}
pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="needs the program chromium"
)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(params=PAGES)
def address(request, tmp_path):
    return write_page(PAGES[request.param](), tmp_path / "report.html").as_uri()


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_never_scrolls_sideways_and_asks_for_nothing_else(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    inner, needed = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert (inner, needed) == (width, width)
    assert asked == [address]
    page.close()


def test_paper_and_letters_of_pictures_turn_with_the_dark(browser, address):
    seen = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        seen[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg.plot text')).fill]"
        )
        page.close()
    assert seen["light"] == ["rgb(252, 251, 248)", seen["light"][1]]
    assert seen["dark"][0] == "rgb(21, 24, 27)"
    assert seen["light"][1] != seen["dark"][1]


def test_a_heading_sorts_the_leaderboard_both_ways_and_puts_what_is_missing_last(browser, tmp_path):
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(write_page(PAGES["sweep"](), tmp_path / "report.html").as_uri())
    table = page.locator("#section-1 table.sorts")

    def column(place):
        cells = table.locator(f"tbody tr td:nth-child({place})")
        return [one.split("\n")[0] for one in cells.all_inner_texts()]

    heading = table.get_by_role("button", name="NDCG@10", exact=True)
    heading.click()
    assert column(2) == ["0.0770", "0.0750"]
    heading.press("Enter")  # the keyboard turns it round
    assert column(2) == ["0.0750", "0.0770"]
    assert table.locator("th[aria-sort]").all_inner_texts() == ["NDCG@10"]
    for _ in range(2):  # the first setting is compared with nothing: last, whichever way round
        table.get_by_role("button", name="against alignment.beta=0.1").click()
        assert column(4)[-1].startswith("the others") or column(4)[-1] == ""
    assert refused == []
    page.close()
