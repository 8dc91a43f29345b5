"""What a run shows while and after it computes never costs the run anything."""

import logging
import time
from typing import Any

import httpx
import prefect.client.orchestration
import pytest
from prefect import flow

import tasks.engine.progress
import tasks.engine.run_page
from recalign.config import PairsConfig, Runtime
from tasks.engine.run import Run
from tasks.engine.run_page import key_of
from tasks.engine.stage import Stage


def slow(job, config):
    """A stage that tells its progress for longer than two updates are apart."""
    for done in range(5):
        job.progress(done, 5, f"loss {5 - done}.5, step {done}")
        time.sleep(0.02)
    job.draft.path("out.txt").write_text("done")
    job.draft.count(5)


def run_flow(root, stage):
    """A flow of this one stage; returns its reference and the flow run's id."""

    @flow(name="one stage")
    def one():
        return Run(Runtime(root=str(root)))(stage, PairsConfig(), label="pairs, round 1")

    state: Any = one(return_state=True)
    return state.result(), str(state.state_details.flow_run_id)


def artifacts(api, run):
    of_run = {"flow_runs": {"id": {"any_": [run]}}}
    found = httpx.post(f"{api}/artifacts/filter", json=of_run, timeout=30).json()
    return {one["key"]: one for one in found}


def test_one_page_tells_how_far_a_stage_is_and_draws_its_curve(
    prefect_server, tmp_path, monkeypatch
):
    monkeypatch.setattr(tasks.engine.progress, "UI_SECONDS", 0.01)
    seen = []

    class Watched(prefect.client.orchestration.SyncPrefectClient):
        def update_artifact(self, artifact_id, artifact):
            seen.append((artifact_id, artifact.data))
            super().update_artifact(artifact_id, artifact)

    monkeypatch.setattr(prefect.client.orchestration, "SyncPrefectClient", Watched)
    _, run = run_flow(tmp_path, Stage("pairs", 1, slow))
    page = artifacts(prefect_server, run)["live-pairs-round-1"]
    assert page["task_run_id"]
    assert page["data"].startswith("**100 %**: 5 of 5.")
    assert {str(artifact) for artifact, _ in seen} == {page["id"]}
    told = [text for _, text in seen]
    (last,) = [text for text in told if text.startswith("**80 %**: 4 of 5, about")]
    assert "loss 1.5, step 4" in last
    assert "data:image/svg+xml" in last


def test_a_server_that_takes_no_artifacts_costs_neither_stage_nor_run(
    prefect_server, tmp_path, monkeypatch, caplog
):
    def refused(*arguments, **named):
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(tasks.engine.progress, "UI_SECONDS", 0.0)
    monkeypatch.setattr(tasks.engine.progress, "create_markdown_artifact", refused)
    monkeypatch.setattr(tasks.engine.run_page, "MarkdownArtifact", refused)
    with caplog.at_level(logging.WARNING, logger="tasks"):
        made, _ = run_flow(tmp_path, Stage("pairs", 1, slow))
    assert made.digest
    assert "its progress cannot be shown: nobody there" in caplog.text
    assert "pairs, round 1: its page cannot be shown" in caplog.text


def test_a_page_is_drawn_once_and_shown_by_every_later_run(prefect_server, tmp_path):
    stage, drawn = Stage("pairs", 1, slow), []

    @stage.shows
    def shown(made):
        drawn.append(made.manifest.rows)
        return ["### Drawn"]

    pages = []
    for _ in range(2):
        _, run = run_flow(tmp_path, stage)
        pages.append(artifacts(prefect_server, run)["pairs-round-1"])
    assert drawn == [5]
    assert "### Drawn" in pages[0]["data"]
    assert pages[0]["data"] == pages[1]["data"]
    assert pages[0]["task_run_id"] != pages[1]["task_run_id"]


@pytest.mark.parametrize(
    ("label", "key"),
    [("reasonings for fit, base", "reasonings-for-fit-base"), ("eps = 0.1, ÄB", "eps-0-1-b")],
)
def test_a_label_becomes_a_key_that_prefect_takes(label, key):
    assert key_of(label) == key
