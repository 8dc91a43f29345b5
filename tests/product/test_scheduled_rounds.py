"""Scheduled rounds on a real Prefect server: one round per run, from the last good one."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import psutil
import pytest
from filelock import FileLock, Timeout
from prefect import get_client
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry

from flows.dpo4rec import how_many, why_ended
from flows.rounds import dpo4rec_rounds
from recalign.artifacts.series import SERIES
from recalign.artifacts.store import Store
from recalign.config import RoundsConfig, Runtime
from tests.product.growing_source import config_for, grow, write_source
from tests.product.test_deployments import create

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([0.30, 0.32], ""),
        ([0.30, 0.32, 0.31], ""),  # one round without a gain: patience is 2
        ([0.30, 0.32, 0.31, 0.33], ""),
        ([0.30, 0.32, 0.31, 0.32], "has converged after round 3"),
        ([0.30, 0.31, 0.32, 0.33, 0.34], "has reached round 4, the last by rounds.n"),
        ([0.30, None, None], ""),  # only planned
    ],
)
def test_a_series_ends_when_validation_no_longer_rises_or_all_rounds_are_done(scores, told):
    assert why_ended(scores, RoundsConfig(n=4, patience=2)) == told


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([0.3, 0.2], "1 of 2 rounds: validation did not rise"),
        ([0.3, 0.4, 0.3], "2 of 2 rounds"),
        ([None, None, None], "2 of 2 rounds"),  # only planned
    ],
)
def test_a_run_says_why_it_had_fewer_rounds_than_it_might(scores, told):
    assert how_many(scores, RoundsConfig(n=2)) == told


class Rounds:
    """One series over a source of its own, run by the deployment or directly."""

    def __init__(self, folder, deployment):
        self.folder, self.root, self.deployment = folder, folder / "artifacts", UUID(deployment)
        self.pointer = self.root / ".series" / "news.json"
        write_source(folder)

    @property
    def parameters(self):
        runtime = Runtime(root=str(self.root), device="cpu", threads=1)
        return {"series": "news", "config": config_for(self.folder), "runtime": runtime}

    def __call__(self):
        return dpo4rec_rounds(**self.parameters, return_state=True)

    def deployed(self):
        """A new run of the deployment, not yet started."""
        plain = {
            name: value if isinstance(value, str) else value.model_dump(mode="json")
            for name, value in self.parameters.items()
        }
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(self.deployment, parameters=plain)

    def execute(self, run_id):
        """Run, or run again as the UI's Retry does, a flow run of the deployment."""
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
            assert state is not None
            if state.is_final():
                client.set_flow_run_state(run_id, AwaitingRetry(), force=True)
            run = client.read_flow_run(run_id)
        run_flow(dpo4rec_rounds, flow_run=run, parameters=self.parameters, return_type="state")
        return self.run(run_id).state

    def run(self, run_id):
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run_id)

    @property
    def schedule_is_active(self):
        with get_client(sync_client=True) as client:
            return client.read_deployment_schedules(self.deployment)[0].active

    @property
    def numbers(self):
        """The numbers of the rounds, by generation."""
        generations = SERIES.read(Store(self.root), "news").generations
        return [[made.number for made in generation.rounds] for generation in generations]

    def made(self, stage=None):
        """When every artifact was made: {(stage, fingerprint): time}."""
        return {(m.stage, m.fingerprint): m.created for m in Store(self.root).manifests(stage)}


@pytest.fixture(scope="module")
def rounds(prefect_server, deployments, tmp_path_factory):
    """A series whose first run is done."""
    rounds = Rounds(tmp_path_factory.mktemp("series"), deployments["dpo4rec-rounds"]["id"])
    state = rounds()
    assert state.message.startswith("series news goes on after round 1; best round 1, validation")
    return rounds


def wait_until(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_locked(path):
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


@pytest.mark.slow
def test_a_series_recommends_by_its_deployment_and_a_mistake_is_told_in_a_line(
    rounds, prefect_api, deployments, worker
):
    config = {"series": "news", "k": 3, "output": str(rounds.folder / "recs.csv")}
    form = {"config": config, "runtime": rounds.parameters["runtime"].model_dump(mode="json")}
    run = worker.finished(create(prefect_api, deployments["recommend"], form))
    told = f"60 of 60 users have recommendations in {config['output']}"
    assert (run["state"]["type"], run["state"]["message"]) == ("COMPLETED", told)
    assert run["name"] == "recommend by series news for all users"
    table, taken = (pl.read_csv(rounds.folder / name) for name in ("recs.csv", "ratings.csv"))
    assert set(table["user_id"]) == set(taken["user_id"])
    assert table.group_by("user_id").agg("rank")["rank"].to_list() == [[1, 2, 3]] * 60
    assert table.join(taken, on=["user_id", "item_id"]).is_empty()
    before = (rounds.folder / "recs.csv").read_bytes()
    mistaken = form | {"config": config | {"interactions": str(rounds.folder / "items.jsonl")}}
    run = worker.finished(create(prefect_api, deployments["recommend"], mistaken))
    assert run["state"]["type"] == "FAILED"
    assert "items.jsonl: no row has the field user_id" in run["state"]["message"]
    assert "\n" not in run["state"]["message"]
    assert (rounds.folder / "recs.csv").read_bytes() == before


@pytest.mark.slow
def test_the_story_of_a_series(rounds, prefect_api, recalign):
    """One story in order, so that its costly beginning is computed once."""
    before, pointer = rounds.made(), rounds.pointer.read_bytes()
    first = rounds.deployed()
    killed_in_its_alignment_beside_a_run_that_leaves_it_alone(rounds, first.id, prefect_api)
    assert rounds.run(first.id).state.is_crashed()
    assert rounds.pointer.read_bytes() == pointer

    retried = rounds.execute(first.id)
    assert retried.message.startswith("series news goes on after round 2;")
    assert rounds.run(first.id).name == "series news: round 2 on ratings.csv"
    assert rounds.numbers == [[0, 1, 2]]
    assert {key: time for key, time in rounds.made().items() if key in before} == before
    new = [stage for stage, _ in rounds.made().keys() - before.keys()]
    refitted, sampled, validated = (
        ["reasonings", "recommender"],
        ["reasonings", "rewards", "pairs", "alignment"],
        ["reasonings", "evaluation"],
    )
    assert sorted(new) == sorted(refitted + sampled + validated)
    advanced = rounds.pointer.read_bytes()
    assert rounds.execute(first.id).message == retried.message
    assert rounds.pointer.read_bytes() == advanced  # a retry advances once

    a_series_at_its_end_is_judged_and_pauses_its_schedule(rounds, recalign)
    another_source_is_refused(rounds)
    a_changed_source_begins_a_generation(rounds, recalign)
    a_changed_yardstick_measures_the_same_policies(rounds)


def killed_in_its_alignment_beside_a_run_that_leaves_it_alone(rounds, run_id, api):
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(run_id)], cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": api, "PWD": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: is_locked(rounds.root / ".locks" / "series-news.lock"), process)
        beside = rounds()
        assert (beside.type.value, beside.name) == ("COMPLETED", "Skipped")
        assert "is being advanced by another run" in beside.message
        wait_until(lambda: list(rounds.root.glob("alignment/.draft-*")), process)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()  # the flow's own process; the runner lives and sees it
        process.wait(60)
    finally:
        process.kill()
        process.wait(30)


def a_series_at_its_end_is_judged_and_pauses_its_schedule(rounds, recalign):
    with get_client(sync_client=True) as client:
        schedule = client.read_deployment_schedules(rounds.deployment)[0]
        client.update_deployment_schedule(rounds.deployment, schedule.id, active=True)
    assert rounds.schedule_is_active
    assert not rounds.made("report")
    told = rounds.execute(rounds.deployed().id).message
    assert told.startswith("series news has reached round 3, the last by rounds.n; best round")
    assert told.endswith("the schedule is paused: activate it again when the source has grown")
    assert not rounds.schedule_is_active
    assert len(rounds.made("report")) == 1
    finished = rounds.made()
    again = rounds()  # without a deployment
    assert again.message.endswith("no deployment runs this, so there is no schedule to pause")
    assert rounds.numbers == [[0, 1, 2, 3]]
    assert rounds.made() == finished
    listed = recalign("series", "--root", str(rounds.root)).stdout
    assert listed.startswith("series news has reached round 3, the last by rounds.n; best round")
    assert len(listed.splitlines()) == 1


def another_source_is_refused(rounds):
    pointer, runtime = rounds.pointer.read_bytes(), rounds.parameters["runtime"]
    state: Any = dpo4rec_rounds(series="news", runtime=runtime, return_state=True)
    place = rounds.folder / "ratings.csv"
    assert f"series news was built on {place}, this run uses synthetic" in state.message
    assert rounds.pointer.read_bytes() == pointer


def a_changed_source_begins_a_generation(rounds, recalign):
    grow(rounds.folder)
    told = rounds().message
    assert told.startswith("series news goes on after round 1 of generation 2; best round 1")
    assert rounds.numbers == [[0, 1, 2, 3], [0, 1]]
    shown = recalign("series", "news", "--root", str(rounds.root)).stdout
    assert "generation 1 began" in shown
    (begun,) = [line for line in shown.splitlines() if line.startswith("generation 2 began")]
    assert "interactions.files.raw/ratings.csv: " in begun
    assert "items.jsonl" not in begun
    assert len([line for line in shown.splitlines() if " alignment/" in line]) == 4
    recalign("gc", "--keep", "1", "--root", str(rounds.root))
    kept = rounds.made()
    assert len([stage for stage, _ in kept if stage == "report"]) == 1
    latest = SERIES.read(Store(rounds.root), "news").latest
    assert latest is not None
    assert {(r.stage, r.fingerprint) for r in latest.stages.values()} <= kept.keys()
    planned = rounds()
    assert planned.message.startswith("series news goes on after round 2 of generation 2")


def a_changed_yardstick_measures_the_same_policies(rounds):
    config, policies = config_for(rounds.folder), rounds.made("alignment")
    other = config.evaluation.model_copy(update={"n_resamples": 321})
    asked = rounds.parameters | {"config": config.model_copy(update={"evaluation": other})}
    state: Any = dpo4rec_rounds(**asked, return_state=True)
    assert state.message.startswith("series news goes on after round 2 of generation 3")
    assert rounds.numbers[-1] == [0, 1, 2]
    assert rounds.made("alignment") == policies
