"""The table of methods: each entry agrees with its flow, and costs nothing until that is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.methods import METHODS, method_named
from recalign.config.presets import PRESETS, load_settings, preset_names

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_an_entry_agrees_with_its_flow(method):
    wiring = method.load()
    assert method_named(method.name) is method
    assert (wiring.name, wiring.config) == (method.name, method.config)
    assert wiring.stages[-1].name == method.report
    assert wiring.flow.name == method.name
    fields = wiring.flow.parameters.properties
    assert list(fields) == ["plan_only", "force", "stop_after", "config", "runtime"]
    assert fields["stop_after"]["enum"] == ["", *(stage.name for stage in wiring.stages)]


def test_prefect_finds_every_flow_by_its_deployments_entrypoint():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entrypoints = {one["entrypoint"] for one in deployments}
    found = [load_flow_from_entrypoint(entrypoint).name for entrypoint in entrypoints]
    assert sorted(found) == sorted(
        ["dpo4rec-rounds", "recommend", "recommend-nightly", "sweep"]
        + [method.name for method in METHODS]
    )


def test_every_folder_of_presets_is_a_methods_and_every_preset_is_valid():
    folders = {path.name for path in PRESETS.iterdir() if path.is_dir()}
    assert folders == {method.config.presets for method in METHODS}
    for method in METHODS:
        assert preset_names(method.config)
        for name in preset_names(method.config):
            assert isinstance(load_settings(method.config, name), method.config)


@pytest.mark.parametrize(("command", "shown"), [("presets", "tiny "), ("settings", "[sft] ")])
def test_listing_presets_and_settings_imports_neither_prefect_nor_a_model_library(command, shown):
    script = (
        "import sys; from flows.cli.app import app;"
        f"app([{command!r}, 'rosepo'], standalone_mode=0);"
        "sys.exit(str({'prefect', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr == "set()\n"
    assert f"\n{shown}" in done.stdout
