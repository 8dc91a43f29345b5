"""Reasonings, encoding and rewards in shards: on threads, Dask and Ray what one process makes."""

import shutil

import pytest
from prefect import flow

from flows.dpo4rec import stages
from recalign.config import Runtime
from recalign.errors import UserError
from recalign.schemas import REWARDS
from tasks.engine.run import Run, StoppedAfter
from tasks.engine.spread import take_slot
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


def test_workers_on_one_machine_take_different_gpus(tmp_path):
    first, second = (take_slot(["0", "1"], tmp_path) for _ in range(2))
    assert first.lock_file != second.lock_file
    with pytest.raises(UserError, match="all 2 GPUs"):
        take_slot(["0", "1"], tmp_path)
    first.release()
    assert take_slot(["0", "1"], tmp_path).lock_file == first.lock_file
