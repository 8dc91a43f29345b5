"""Rewards and evaluation that are killed half-way keep what they had scored."""

import shutil

import pytest

import recalign.evaluation.texts.evaluate
import tasks.rewards
from recalign.config import EvaluationPhase, RewardsConfig, Runtime
from recalign.schemas import REWARDS
from tasks.engine.stage import Call
from tasks.evaluation import evaluation
from tasks.rewards import rewards

SCORED, JUDGED = "rewards, round 1", "validation, base"


def killed_in_the_third(function, done):
    def one(*given, **options):
        done.append(len(done))
        if len(done) == 3:
            raise KeyboardInterrupt
        return function(*given, **options)

    return one


def computed_twice(finished, root, label, stage, config):
    """The artifact before, and what the second attempt makes after the first was killed."""
    before = finished.artifact(label)
    made = before.manifest
    shutil.rmtree(root / made.stage / made.fingerprint)
    runtime = Runtime(root=str(root), device="cpu", threads=1)
    call = Call(made.identity, config(**made.config), made.inputs, {}, runtime)
    with pytest.raises(KeyboardInterrupt):
        stage.compute(call)
    return before, finished.store.__class__(root).open(stage.compute(call))


def test_rewards_go_on_behind_the_last_shard(finished, copy, monkeypatch):
    done: list[int] = []
    opened = tasks.rewards._scorer

    def scorer(*given):
        return killed_in_the_third(opened(*given), done)

    monkeypatch.setattr(tasks.rewards, "SHARD_USERS", 16)
    monkeypatch.setattr(tasks.rewards, "_scorer", scorer)
    before, after = computed_twice(finished, copy, SCORED, rewards, RewardsConfig)
    first, second = REWARDS.read(before), REWARDS.read(after)
    n_shards = -(-first["user_index"].n_unique() // 16)
    assert len(done) == n_shards + 1 > 4  # the third, too, once more
    assert second.drop("log_prob", "reward").equals(first.drop("log_prob", "reward"))
    assert second["reward"].to_list() == pytest.approx(first["reward"].to_list(), abs=1e-6)


def test_an_evaluation_goes_on_behind_its_last_row(finished, copy, monkeypatch):
    done: list[int] = []
    module = recalign.evaluation.texts.evaluate
    whole = killed_in_the_third(module.evaluate_row, done)
    monkeypatch.setattr(module, "evaluate_row", whole)
    before, after = computed_twice(finished, copy, JUDGED, evaluation, EvaluationPhase)
    assert len(done) > 4
    assert after.manifest.digest == before.manifest.digest
    rows = after.manifest.rows // after.manifest.figures["users"]
    assert len(done) == rows + 1
