"""The report calls every artifact what the flow calls the step that made it."""

import re

import polars as pl

from recalign.report import PAGE
from recalign.schemas import REASONINGS
from tests.tasks.tiny_run import CONFIG


def test_the_report_calls_every_artifact_what_the_flow_calls_its_step(finished):
    page = finished.artifact("report").path(PAGE).read_text()
    shown = dict(re.findall(r'<tr id="artifact-(\w+)"><td class="l wrap">([^<]*)<', page))
    made = {reference.fingerprint: label for label, reference in finished.done.items()}
    assert shown == {key: label for key, label in made.items() if label != "report"}


def test_an_example_shows_the_history_that_the_policy_was_shown(finished):
    page = finished.artifact("report").path(PAGE).read_text()
    shown = re.findall(r'<span class="small">History</span> ([^<]*)<', page)
    assert len(shown) == CONFIG.report.n_examples
    assert {len(one.split(" · ")) for one in shown} == {CONFIG.reasonings.history_items}


def test_the_page_opens_with_the_pairs_that_were_aligned_on(finished):
    page = finished.artifact("report").path(PAGE).read_text()
    figures = finished.artifact("alignment, round 1").manifest.figures
    assert figures["held_out_pairs"] > 0
    learned = figures["pairs"] - figures["held_out_pairs"]
    assert f"was aligned in 1 round on {learned:,} pairs of texts" in page


def test_the_report_tells_malformed_texts_of_greedy_and_of_sampled_ones_apart(finished):
    page = finished.artifact("report").path(PAGE).read_text()
    section = page[page.index("What the policies wrote") :]
    rows = section[section.index("<tbody>") : section.index("</tbody>")].split("</tr>")[:-1]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    shown = {row[0]: sum(map(int, re.findall(r"\d+", row[-1]))) for row in cells}
    counted = {}
    for policy, role in (("base", "base"), ("aligned", "aligned")):
        evaluated = finished.artifact("evaluation").manifest.inputs[role]
        texts = REASONINGS.read(finished.store.open(evaluated)).drop_nulls("malformed")
        counted[f"{policy} greedy"] = texts.filter(pl.col("sample") < 0).height
        counted[f"{policy} sampled"] = texts.filter(pl.col("sample") >= 0).height
    assert shown == counted
    assert sum(counted.values()) > 0
