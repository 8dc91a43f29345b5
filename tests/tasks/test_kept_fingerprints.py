"""Roots made at commit 2ebef25, before identities were settled, are reused where nothing changed.

kept_fingerprints.json has what `run dpo4rec --preset tiny` and `run rosepo --preset tiny` made
there, stage by stage, of the stages whose identity is still the same. Whoever raises a stage's
version deletes it there, and with it what stands on it.
"""

import json
from pathlib import Path

import pytest

from flows.dpo4rec import stages
from flows.rosepo import one_strategy
from flows.session import plan
from recalign.config import DPO4RecConfig, RosePOConfig, Runtime
from recalign.config.presets import load_settings
from tasks.engine.run import Run

KEPT = json.loads(Path(__file__).with_name("kept_fingerprints.json").read_text())


@pytest.mark.parametrize(
    ("method", "model", "walk"),
    [("dpo4rec", DPO4RecConfig, stages), ("rosepo", RosePOConfig, one_strategy)],
)
def test_what_was_made_before_is_found_by_the_same_fingerprint(method, model, walk, tmp_path):
    config = load_settings(model, "tiny")
    steps = plan(Run(Runtime(root=str(tmp_path))), lambda run: walk(run, config))
    planned = {step.label: step.reference.fingerprint for step in steps}
    assert {"interactions", "splits"} <= KEPT[method].keys()
    assert {label: planned[label] for label in KEPT[method]} == KEPT[method]
