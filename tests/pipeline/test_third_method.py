"""A method made of stages that exist, wired outside the package: it runs like those inside."""

import re
from pathlib import Path

import pytest

from flows.cli.inventory import report_path
from flows.cli.runs import RunOptions, run_method, show_plan
from flows.cli.settings import list_presets
from flows.methods import Method
from flows.session import Wiring
from recalign.config import ComparedRow, RosePOConfig
from tasks.alignment import alignment
from tasks.comparison import comparison
from tasks.interactions import interactions
from tasks.oracle import oracle
from tasks.recommendations import recommendations
from tasks.reference import reference
from tasks.rejections import rejections
from tasks.sft import sft
from tasks.smoothing import smoothing
from tasks.splits import splits

ROWS = [
    ComparedRow(label="SFT", kind="sft"),
    ComparedRow(label="SFT continued", kind="continued", strategy="random"),
    ComparedRow(label="DPO", kind="aligned", strategy="random", estimator="none"),
]
LOSSES = {"continued": "nll", "aligned": "dpo"}


def plain_dpo(run, config):
    """DPO on random rejections, beside more fine-tuning on what was chosen."""
    data = run(interactions, config.interactions)
    world = {"interactions": data, "splits": run(splits, config.splits, {"interactions": data})}
    judge, tuned = run(oracle, config.oracle, world), {"sft": run(sft, config.sft, world)}
    drawn = run(rejections, config.rejections.asked_as(config.sft.prompt), world)
    pairs = run(smoothing, config.smoothing, world | {"rejections": drawn})
    drawn_by = world | tuned | {"rejections": drawn}
    before = run(reference, config.alignment.for_reference(), drawn_by)
    story = {"rejections_random": drawn, "smoothing_random_none": pairs}
    for number, row in enumerate(ROWS):
        judged = {"policy": tuned["sft"]}
        if row.kind in LOSSES:
            settings = config.alignment.model_copy(update={"loss": LOSSES[row.kind]})
            inputs = {"start": tuned["sft"], "completions": pairs, "reference": before}
            judged["policy"] = run(alignment, settings, inputs, label=f"tuning to {row.label}")
        for name, phase in (("valid", "valid"), ("row", "test")):
            asked, label = config.recommendations.for_phase(phase), f"{phase} of {row.label}"
            story[f"{name}_{number}"] = run(recommendations, asked, world | judged, label=label)
    return run(
        comparison, config.recommendations.compare(ROWS), world | {"oracle": judge} | tuned | story
    )


STAGES = (
    interactions, splits, oracle, sft, rejections, smoothing, reference, alignment,
    recommendations, comparison,
)  # fmt: skip
PLAIN_DPO = Method(
    "plain-dpo", RosePOConfig, report="comparison",
    load=lambda: Wiring("plain-dpo", RosePOConfig, STAGES, plain_dpo, about=plain_dpo.__doc__),
)  # fmt: skip


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    root = tmp_path_factory.mktemp("third") / "artifacts"
    settings = ["rejections.strategy=random", "smoothing.estimator=none", "sft.epochs=1"]
    return RunOptions("tiny", settings, str(root))


@pytest.mark.slow
def test_a_third_method_runs_is_planned_and_reports_like_the_others(prefect_server, asked, capsys):
    run_method(PLAIN_DPO, asked)
    page = capsys.readouterr().out.strip().rpartition("report: ")[2]

    report_path("", asked.root)
    assert capsys.readouterr().out.strip() == page

    show_plan(PLAIN_DPO, asked)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "16 steps: 16 reused, 0 to do"
    labels = {line.split("  ")[0].strip() for line in lines[1:-1]}
    assert {"tuning to DPO", "test of SFT continued"} < labels
    text = Path(page).read_text()
    shown = set(re.findall(r'<tr id="artifact-\w+"><td class="l wrap">([^<]*)<small', text))
    assert shown == labels - {"comparison"}

    list_presets(PLAIN_DPO)
    assert "\ntiny " in capsys.readouterr().out
