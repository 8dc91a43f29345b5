"""The report calls every artifact what the flow calls the step that made it."""

import re

from recalign.report import PAGE


def test_the_report_calls_every_artifact_what_the_flow_calls_its_step(finished):
    page = finished.artifact("report").path(PAGE).read_text()
    shown = dict(re.findall(r'<tr id="artifact-(\w+)"><td class="l wrap">([^<]*)<', page))
    made = {reference.fingerprint: label for label, reference in finished.done.items()}
    assert shown == {key: label for key, label in made.items() if label != "report"}
