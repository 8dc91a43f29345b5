"""A recommender that does not read texts stops a run before its rewards are paid for."""

import pytest

from flows import dpo4rec
from recalign.config import RecommenderConfig, RoundsConfig, Runtime
from recalign.errors import NoSignalError
from tasks.engine.run import Run
from tests.tasks.tiny_run import CONFIG, direct

GUARDED = CONFIG.model_copy(
    update={"recommender": RecommenderConfig(hidden=8, epochs=1), "rounds": RoundsConfig(n=2)}
)


def checked(tmp_path, monkeypatch, config):
    """The labels of the recommenders that are asked for a signal in a whole walk."""
    asked = []
    monkeypatch.setattr(dpo4rec, "check_signal", lambda run, made: asked.append(made))
    run = Run(Runtime(root=str(tmp_path / "artifacts")), plan_only=True)
    dpo4rec.stages(run, config)
    labels = {step.reference: step.label for step in run.steps}
    return [labels[one] for one in asked]


def test_recommenders_that_give_rewards_are_asked_and_no_others(tmp_path, monkeypatch):
    assert checked(tmp_path, monkeypatch, GUARDED) == ["recommender, base", "recommender, round 1"]
    one = GUARDED.model_copy(update={"rounds": RoundsConfig(n=1)})
    assert checked(tmp_path, monkeypatch, one) == ["recommender, base"]
    loose = {"recommender": GUARDED.recommender.model_copy(update={"guard": False})}
    assert checked(tmp_path, monkeypatch, GUARDED.model_copy(update=loose)) == []


def test_without_a_signal_the_run_ends_with_its_figures_kept(tmp_path):
    walk = direct(tmp_path / "artifacts")
    with pytest.raises(NoSignalError, match=r"recommender\.guard to false"):
        dpo4rec.begin(walk, GUARDED)
    kept = walk.artifact("recommender, base")
    assert kept.manifest.figures["signal"] is False
    assert "reasonings for valid, base" not in walk.done


def test_going_on_regardless_fits_nothing_anew():
    strict, loose = RecommenderConfig(guard=True), RecommenderConfig(guard=False)
    assert strict.identity() == loose.identity()
    assert strict.identity()["guard"] is True
