"""What a plan tells when raw files are not here yet, and what a run is called."""

from types import SimpleNamespace
from typing import Any

import httpx
import prefect.runtime
import pytest

from flows.dpo4rec import dpo4rec, stages
from flows.rosepo import rosepo, rosepo_grid
from flows.session import outlook, plan, plan_row
from recalign.config import DPO4RecConfig, Runtime
from recalign.config.presets import load_settings
from tasks.engine.run import FORCED, UNKNOWN, Run


def planned(root, preset):
    config = load_settings(DPO4RecConfig, preset)
    return plan(Run(Runtime(root=str(root))), lambda run: stages(run, config))


def run_name(flow):
    return flow.flow_run_name()


def test_a_plan_downloads_nothing_and_says_what_a_run_would_download(tmp_path):
    steps = {step.label: step for step in planned(tmp_path / "root", "ml-100k")}
    first = steps["interactions"]
    assert (first.action, first.reason) == ("unknown", "ml-100k.zip would be downloaded first")
    assert plan_row(first)["artifact"] == "interactions/unknown"
    assert steps["splits"].reason == "known once interactions is"
    assert {step.reference.fingerprint for step in steps.values()} == {UNKNOWN}
    assert "28 not known before a download" in outlook(list(steps.values()))
    assert not list((tmp_path / "root").rglob("*.zip*"))


def test_once_the_download_lies_in_the_cache_the_plan_knows_every_fingerprint(tmp_path):
    cache = tmp_path / "root" / ".cache" / "raw"
    cache.mkdir(parents=True)
    (cache / "ml-100k.zip").write_bytes(b"whatever the publisher sends")
    steps = planned(tmp_path / "root", "ml-100k")
    assert {step.action for step in steps} == {"compute"}
    assert UNKNOWN not in {step.reference.fingerprint for step in steps}


def test_one_run_of_a_stage_is_forced_by_its_label_and_all_of_them_by_its_name(tmp_path):
    config = load_settings(DPO4RecConfig, "tiny")

    def forced(name):
        run = Run(Runtime(root=str(tmp_path)), frozenset({name}))
        steps = plan(run, lambda walk: stages(walk, config))
        return [step.label for step in steps if step.reason == FORCED]

    assert forced("alignment, round 2") == ["alignment, round 2"]
    assert forced("alignment") == ["alignment, round 1", "alignment, round 2"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "dpo4rec on synthetic, 2 rounds"),
        ({"preset": "ml-100k"}, "dpo4rec on ml-100k, 2 rounds"),
        (
            {"preset": "tiny", "config": {"alignment": {"beta": 0.2}, "rounds": {"n": 1}}},
            "dpo4rec on synthetic, 1 round, alignment.beta=0.2, rounds.n=1",
        ),
        (
            {"preset": "amazon-beauty", "plan_only": True, "stop_after": "pairs"},
            "plan: dpo4rec on amazon Beauty 2014, 2 rounds, until pairs",
        ),
        ({"config": {"oracle": {"heads": 3}}}, "dpo4rec, settings refused"),
    ],
)
def test_a_run_is_named_by_its_data_rounds_and_changes(monkeypatch, parameters, expected):
    monkeypatch.setattr(prefect.runtime, "flow_run", SimpleNamespace(parameters=parameters))
    assert run_name(dpo4rec) == expected


def test_the_runs_of_a_grid_are_not_named_like_those_of_one_strategy(monkeypatch):
    parameters = {"preset": "tiny"}
    monkeypatch.setattr(prefect.runtime, "flow_run", SimpleNamespace(parameters=parameters))
    names = [run_name(flow) for flow in (rosepo, rosepo_grid)]
    assert names == ["rosepo on synthetic", "rosepo-grid on synthetic"]


def test_plan_only_ends_completed_with_the_plan_and_computes_nothing(prefect_server, tmp_path):
    root = tmp_path / "root"
    state: Any = dpo4rec(
        preset="tiny", plan_only=True, force=["splits"], runtime=Runtime(root=str(root)),
        return_state=True,
    )  # fmt: skip
    assert state.is_completed()
    assert state.message == "Only planned, as asked: 28 steps: 0 reused, 28 to do"
    assert not list(root.glob("[!.]*"))
    of_run = {"id": {"any_": [str(state.state_details.flow_run_id)]}}
    ask = {"flow_runs": of_run}
    with httpx.Client(base_url=prefect_server, timeout=30) as api:
        (shown,) = api.post("/artifacts/filter", json=ask).json()
        task_runs = api.post("/task_runs/filter", json=ask).json()
    assert shown["key"] == "plan"
    assert '"why": "forced"' in shown["data"]
    assert task_runs == []
