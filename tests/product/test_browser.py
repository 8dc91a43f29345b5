"""What a user does in Prefect's UI, done in a headless Chromium against a real server and worker.

`RECALIGN_SCREENSHOTS=docs/images pytest tests/product/test_browser.py` keeps pictures of the pages.
"""

import io
import os
import re
import shutil
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from recalign.config import DPO4RecConfig, ReportConfig, RoundsConfig, Runtime
from recalign.config.presets import load_settings

CHROMIUM = shutil.which("chromium")
expect.set_options(timeout=60_000)  # a page of the UI takes its time on a busy machine
OFFLINE = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
RUN_SECONDS = 420
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM and not os.environ.get("CI"), reason="needs the program chromium"
    ),
]


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def keep_picture(page, name):
    """A small picture of what is seen, if pictures are wanted."""
    folder = os.environ.get("RECALIGN_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(2000)  # for what is drawn with movement
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.quantize(64).save(Path(folder) / f"{name}.png", optimize=True)


def field(page, model, name):
    """The field of the run form with this setting's description."""
    description = model.model_fields[name].description.split(";")[0]
    return in_form(page, description)


def in_form(page, description):
    return page.locator(".schema-form-property").filter(has_text=description).last


def submit(page):
    """Send the form, again where SQLite was locked (503), and go to the page of the run made."""
    for _ in range(5):
        with page.expect_response(re.compile("create_flow_run")) as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.status != 503:
            break
        page.wait_for_timeout(2000)
    assert answer.value.status == 201, answer.value.text()
    ui = page.url.split("/deployments/")[0]
    page.goto(f"{ui}/runs/flow-run/{answer.value.json()['id']}")


def finish(page):
    """Wait, as a user would, until the page says how the run ended; it must have completed."""
    ended = re.compile("Completed|Failed|Crashed|Cancelled")
    state = page.locator(".state-badge").first
    expect(state).to_have_text(ended, timeout=1000 * RUN_SECONDS)
    expect(state).to_have_text("Completed")


def open_artifact(page, run, key):
    """Go by the tab of a run's page; until the page is ready it forgets a click on a tab."""
    page.goto(run)
    tab, link = (page.get_by_text(text, exact=True) for text in ("Artifacts", key))
    for _ in range(20):
        tab.click()
        page.wait_for_timeout(1000)
        if link.is_visible():
            break
    link.click()
    page.wait_for_url(re.compile("/artifacts/artifact/"))


def states(page):
    """The state of every task run on the run's page, by name."""
    page.get_by_text("Task Runs", exact=True).click()
    items = page.locator(".state-list-item")
    expect(items.first).to_be_visible()
    while True:  # the list grows as it is scrolled
        n_shown = items.count()
        items.last.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        if items.count() == n_shown:
            break
    rows = [item.inner_text().splitlines() for item in items.all()]
    return {row[0]: next(cell for cell in row if cell in ("Cached", "Completed")) for row in rows}


@pytest.mark.usefixtures("worker")
def test_a_run_from_the_form_is_copied_and_only_the_changed_stage_computes(
    page, prefect_api, deployments, tmp_path
):
    ui, deployment = prefect_api.removesuffix("/api"), deployments["dpo4rec"]["id"]
    tiny = {"config": load_settings(DPO4RecConfig, "tiny").model_dump(mode="json")}
    httpx.patch(f"{prefect_api}/deployments/{deployment}", json={"parameters": tiny})
    page.goto(f"{ui}/deployments/deployment/{deployment}/run")
    keep_picture(page, "form")
    field(page, Runtime, "root").locator("textarea").fill(str(tmp_path / "artifacts"))
    field(page, RoundsConfig, "n").locator("input").fill("1")
    submit(page)
    finish(page)
    page.reload()  # the graph of a run that was watched is drawn to another scale
    expect(page.get_by_text("dpo4rec on synthetic, 1 round, rounds.n=1").first).to_be_visible()
    keep_picture(page, "run")

    run = page.url
    open_artifact(page, run, "results")
    expect(page.get_by_text("Aligned policy, greedy", exact=True)).to_be_visible()
    keep_picture(page, "results")

    page.goto(run)
    expect(page.get_by_text("Artifacts", exact=True)).to_be_visible()
    page.locator(".p-icon-button-menu button, button.p-icon-button-menu").first.click()
    page.get_by_text("Copy to new run").click()
    examples = field(page, ReportConfig, "n_examples").locator("input")
    expect(examples).to_have_value("5")
    expect(field(page, RoundsConfig, "n").locator("input")).to_have_value("1")
    examples.fill("3")
    submit(page)
    finish(page)
    copy = page.url
    assert copy != run
    told = states(page)
    keep_picture(page, "cached")
    assert told.pop("report") == "Completed"
    assert len(told) >= 15
    assert set(told.values()) == {"Cached"}

    open_artifact(page, copy, "plan")
    expect(page.get_by_text("config.n_examples: 5 -> 3")).to_be_visible()
    keep_picture(page, "plan")
    made = {path.parent.name for path in (tmp_path / "artifacts").glob("report/*/report.html")}
    assert len(made) == 2
