"""The deployments of prefect.yaml on a real server, run by a real worker."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import httpx

from recalign.artifacts.series import NAME
from recalign.config import DPO4RecConfig, InteractionsConfig
from recalign.config.presets import fill_from_preset, load_settings

ROOT = Path(__file__).parent.parent.parent


def test_every_deployment_is_registered_with_settings_that_are_valid(deployments):
    assert set(deployments) == {"dpo4rec", "dpo4rec-ml-1m", "dpo4rec-rounds"}
    for deployment in deployments.values():
        given = deployment["parameters"]
        config = fill_from_preset(
            DPO4RecConfig, given.get("config", {}), "dpo4rec", given.get("preset", "")
        )
        assert config.rounds.n == 2


def test_scheduled_rounds_are_shipped_paused_and_never_overlap(deployments):
    rounds = deployments["dpo4rec-rounds"]
    assert [one["active"] for one in rounds["schedules"]] == [False]
    assert rounds["global_concurrency_limit"]["limit"] == 1
    assert rounds["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    name = rounds["parameter_openapi_schema"]["properties"]["series"]
    assert (name["default"], name["pattern"]) == ("dpo4rec", NAME)


def test_the_form_knows_title_description_bounds_and_choices(deployments):
    schema = deployments["dpo4rec"]["parameter_openapi_schema"]
    beta = schema["definitions"]["AlignmentConfig"]["properties"]["beta"]
    assert beta["title"] == "Beta"
    assert "Strength" in beta["description"]
    assert (beta["exclusiveMinimum"], beta["maximum"]) == (0, 10)
    source = schema["definitions"]["InteractionsConfig"]["properties"]["source"]
    assert tuple(source["enum"]) == get_args(InteractionsConfig.model_fields["source"].annotation)
    assert {"synthetic", "ml-100k", "amazon", "steam", "files"} < set(source["enum"])


def test_a_worker_runs_a_deployment_with_changed_nested_settings(
    prefect_api, deployments, tmp_path
):
    config = load_settings(DPO4RecConfig, "dpo4rec", "tiny").model_dump(mode="json")
    config["splits"]["test"] = 5
    parameters = {
        "config": config,
        "runtime": {"root": str(tmp_path / "artifacts")},
        "stop_after": "splits",
    }
    created = httpx.post(
        f"{prefect_api}/deployments/{deployments['dpo4rec']['id']}/create_flow_run",
        json={"parameters": parameters, "state": {"type": "SCHEDULED"}}, timeout=30,
    )  # fmt: skip
    run = created.json()["id"]
    log = (tmp_path / "worker.log").open("w")
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "recalign",
         "--prefetch-seconds", "300"],
        cwd=ROOT, env=os.environ | {"PREFECT_API_URL": prefect_api}, start_new_session=True,
        stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        state = {"type": "SCHEDULED"}
        while state["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
            assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
            time.sleep(1)
            state = httpx.get(f"{prefect_api}/flow_runs/{run}", timeout=30).json()["state"]
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(60)
    assert (state["type"], state["message"]) == ("COMPLETED", "Stopped after splits, as asked")
    assert len(list((tmp_path / "artifacts").glob("splits/*/windows.parquet"))) == 1
    artifacts = httpx.post(f"{prefect_api}/artifacts/filter", json={}, timeout=30).json()
    plans = [one for one in artifacts if one["flow_run_id"] == run and one["key"] == "plan"]
    assert len(plans) == 1
    assert "never computed" in plans[0]["data"]
