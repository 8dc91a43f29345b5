"""What a user does in Prefect's UI, as `/` opens it, in a headless Chromium on a real service.

`RECALIGN_SCREENSHOTS=docs/images pytest tests/product/test_browser.py` keeps pictures of the pages.
"""

import io
import os
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from recalign.artifacts.series import SERIES
from recalign.artifacts.store import Store
from recalign.config import RecommendConfig, ReportConfig, RoundsConfig
from tests.product.growing_source import write_preset, write_source

CHROMIUM = shutil.which("chromium")
PICTURES = os.environ.get("RECALIGN_SCREENSHOTS")
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


@pytest.fixture(scope="module")
def news(service, tmp_path_factory):
    """The service, with deployments of a user's own preset over his own files."""
    folder = tmp_path_factory.mktemp("news")
    write_source(folder)
    write_preset(folder, folder / "news.toml")
    done = service("deploy", str(folder / "news.toml"))
    assert done.returncode == 0, done.stderr
    return service


@pytest.fixture
def page(service):
    """A page of a browser that logged in at the printed address."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        here = f"http://127.0.0.1:{service.port}"
        page = browser.new_page(base_url=here, viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        page.goto(service.login())  # it goes on to `/`
        page.wait_for_url(re.compile("/v2/dashboard"))
        # A page that is left while the UI still checks the secret makes it forget that.
        expect(page.get_by_role("link", name="Deployments").first).to_be_visible()
        yield page
        browser.close()


def keep_picture(page, name):
    """A small picture of what is seen, if pictures are wanted."""
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(8000)  # a graph is drawn with movement
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.quantize(64).save(Path(PICTURES) / f"{name}.png", optimize=True)


def field(page, model, name):
    """The field of a form with this setting's description."""
    description = model.model_fields[name].description.split(";")[0]
    return page.locator("div.group").filter(has_text=description).last.locator("input, textarea")


def fill(page, model, name, before, after):
    """Change a field of a form that says `before`."""
    box = field(page, model, name)
    expect(box).to_have_value(before)
    box.fill(after)
    page.wait_for_timeout(500)  # the form takes what is typed a moment later


def sent(page, path, act):
    """The server's answer to what is done; done again where SQLite was locked (503)."""

    def is_it(answer):
        return path in answer.url and answer.request.method != "GET"

    for _ in range(12):
        with page.expect_response(is_it) as answer:
            act()
        if answer.value.status != 503:
            break
        page.wait_for_timeout(700)
    assert answer.value.ok, answer.value.text()
    return answer.value


def start(page, act):
    """Start a run so, and wait on its page, as a user would, for how it ends; its id."""
    run = sent(page, "/create_flow_run", act).json()["id"]
    page.goto(f"/v2/runs/flow-run/{run}")
    state = page.get_by_text(re.compile("^(Completed|Failed|Crashed|Cancelled)$")).first
    expect(state).to_be_visible(timeout=1000 * RUN_SECONDS)
    expect(state).to_have_text("Completed")
    return run


def submit(page):
    return start(page, page.get_by_role("button", name="Submit").click)


def open_artifact(page, run, key):
    """From a run's page to its artifact of this key."""
    page.goto(f"/v2/runs/flow-run/{run}?tab=Artifacts")
    page.get_by_role("heading", name=key, exact=True).click()
    page.wait_for_url(re.compile("/artifacts/artifact/"))


def search(page, word, found):
    """Search a table for `word`; again where the page, drawn anew, forgot what was typed."""
    row = page.get_by_text(found, exact=True)
    for _ in range(12):
        page.get_by_placeholder("Search").fill(word)
        page.wait_for_timeout(2500)
        if row.is_visible():
            break
    expect(row).to_be_visible()


def states(page, run):
    """The state of every task run on the run's page, by name."""
    page.goto(f"/v2/runs/flow-run/{run}?tab=TaskRuns")
    cards = page.locator("div.border-l-8")
    told = {}
    while True:  # page by page
        expect(cards.first).to_be_visible()
        page.wait_for_timeout(1500)
        for card in cards.all():
            name = card.get_by_role("link").last.inner_text()
            told[name] = card.get_by_text(re.compile("^(Cached|Completed)$")).inner_text()
        following = page.get_by_role("button", name="Go to next page")
        if following.is_disabled():
            return told
        following.click()


def test_a_run_from_the_form_is_copied_computes_what_changed_and_recommends(page, news, tmp_path):
    deployment = news.deployment("dpo4rec-news")
    page.goto(f"/v2/deployments/deployment/{deployment['id']}/run")
    expect(field(page, RoundsConfig, "n")).to_be_visible()
    expect(page.get_by_text("Settings of every stage", exact=False).first).to_be_visible()
    expect(page.get_by_text(re.compile("^(plan_only|stop_after|config|runtime)"))).to_have_count(0)
    keep_picture(page, "form")
    fill(page, RoundsConfig, "n", "3", "1")
    first = submit(page)
    page.reload()
    name = "dpo4rec news on ratings.csv, 1 round, rounds.n=1"
    expect(page.get_by_text(name).first).to_be_visible()
    keep_picture(page, "run")

    open_artifact(page, first, "results")
    expect(page.get_by_text("Base policy, greedy", exact=True)).to_be_visible()
    keep_picture(page, "results")
    search(page, "aligned", "Aligned policy, greedy")  # a table shows ten rows at once
    open_artifact(page, first, "outcome")
    page.get_by_role("link", name="Open the report").click()
    page.wait_for_url(re.compile("/reports/report/"))
    expect(page.locator("svg.plot").first).to_be_visible()

    page.goto(f"/v2/runs/flow-run/{first}")
    page.locator("button[aria-haspopup=menu]").last.click()
    page.get_by_text("Copy to new run").click()
    expect(field(page, RoundsConfig, "n")).to_have_value("1")
    fill(page, ReportConfig, "n_examples", "1", "3")
    copy = submit(page)
    told = states(page, copy)
    keep_picture(page, "cached")
    assert told.pop("report") == "Completed"
    assert len(told) >= 15
    assert set(told.values()) == {"Cached"}
    open_artifact(page, copy, "plan")
    told = "22 steps: 21 reused, 1 to do, first report (config.n_examples: 1 -> 3)"
    expect(page.get_by_text(told)).to_be_visible()
    rows = page.get_by_role("row")
    expect(rows).to_have_count(1 + 10)  # a heading; ten rows are shown at once
    expect(rows.nth(1)).to_have_text(re.compile("^interactions ?interactions/[0-9a-f]{10} ?reused"))
    expect(rows.filter(has_text="reused")).to_have_count(10)
    keep_picture(page, "plan")

    recommends, output = news.deployment("recommend"), tmp_path / "recs.csv"
    page.goto(f"/v2/deployments/deployment/{recommends['id']}/run")
    fill(page, RecommendConfig, "output", "recs.parquet", str(output))
    submit(page)
    source = deployment["parameters"]["config"]["interactions"]["files"]["interactions"]
    asked = pl.read_csv(source, infer_schema=False)["user_id"].unique()
    given = pl.read_csv(output, infer_schema=False).filter(pl.col("rank") == "1")
    assert sorted(given["user_id"]) == sorted(asked)


def test_scheduled_rounds_go_on_after_a_restart_with_what_was_edited(page, news):
    name = "dpo4rec-rounds-news"
    before = news.deployment(name)
    place = f"/v2/deployments/deployment/{before['id']}"

    def quick_run():
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Quick run").click()

    page.goto(place)
    start(page, quick_run)
    page.reload()
    expect(page.get_by_text("series news: round 1 on ratings.csv").first).to_be_visible()
    while news.deployment(name)["parameters"]["config"]["rounds"]["n"] == 3:
        page.goto(f"{place}/edit")  # this form may set back what is typed, when it asks again
        fill(page, RoundsConfig, "n", "3", "2")
        save = page.get_by_role("button", name="Save")
        sent(page, f"/deployments/{before['id']}", save.click)
    page.goto(place)
    sent(page, "/schedules/", lambda: run_every_minute(page))
    news("down")
    news.up()

    page.goto(place)  # the browser is still logged in
    expect(page.get_by_text("Every minute")).to_be_visible()
    news.wait_until(lambda: is_paused(news, name), "the end of the series")
    (series,) = SERIES.read(Store(news.root), "news").generations
    assert [made.number for made in series.rounds] == [0, 1, 2]
    assert news.deployment(name)["parameters"]["config"]["rounds"]["n"] == 2
    page.reload()
    page.get_by_text("series news: round 2 on ratings.csv").first.click()
    page.get_by_role("tab", name="Details").click()
    told = "series news has reached round 2, the last by rounds.n"
    expect(page.get_by_text(re.compile(told)).first).to_be_visible()


def run_every_minute(page):
    """Edit a deployment's schedule, and switch it on."""
    # Until the schedule is drawn, the last menu is that of the deployment, whose Edit is a page.
    expect(page.get_by_text(re.compile(r"At 0\d:00")).first).to_be_visible()
    page.locator("button[aria-haspopup=menu]").last.click()
    page.get_by_role("menuitem", name="Edit").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("input:not([type=checkbox])").first.fill("* * * * *")
    dialog.get_by_role("switch").first.click()
    dialog.get_by_role("button", name="Save").click()


def is_paused(service, name):
    (schedule,) = service.deployment(name)["schedules"]
    return not schedule["active"]
