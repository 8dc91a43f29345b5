"""A recommender that does not read texts stops a run before its rewards are paid for."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import dpo4rec
from flows.cli.runs import needs_no_server
from flows.session import plan
from recalign.artifacts.identity import Identity
from recalign.config import AlignmentConfig, RecommenderConfig, RoundsConfig, Runtime
from recalign.errors import NoSignalError, UserError
from recalign.recommender.required import require_signal, users_needed
from recalign.schemas import RESULTS
from tasks.alignment import check_progress
from tasks.engine.run import Run, Step
from tasks.evaluation import unconfirmed
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


def test_the_base_recommender_alone_can_end_a_run(tmp_path, monkeypatch):
    assert checked(tmp_path, monkeypatch, GUARDED) == ["recommender, base"]
    one = GUARDED.model_copy(update={"rounds": RoundsConfig(n=1)})
    assert checked(tmp_path, monkeypatch, one) == ["recommender, base"]
    loose = {"recommender": GUARDED.recommender.model_copy(update={"guard": False})}
    assert checked(tmp_path, monkeypatch, GUARDED.model_copy(update=loose)) == []


def test_a_policy_that_another_run_was_allowed_to_make_worse_is_refused(tmp_path):
    run = Run(Runtime(root=str(tmp_path)))
    draft = run.store.draft(Identity("alignment", 3, {}, {}, {}), {})
    draft.tell({"held_out_loss_start": 1.0, "held_out_loss": 2.0})
    made = run.store.commit(draft).reference
    with pytest.raises(UserError, match=r"diverged: the held-out loss was 1 before"):
        check_progress(run, made, AlignmentConfig())
    check_progress(run, made, AlignmentConfig(allow_worse=True))
    for config, reference, stops in (
        (AlignmentConfig(), made, True),
        (AlignmentConfig(allow_worse=True), made, False),
        (AlignmentConfig(), made.model_copy(update={"digest": ""}), False),  # to be made anew
    ):
        walk = Run(run.runtime, plan_only=True, steps=[Step("alignment", reference, "reuse", "")])
        check_progress(walk, reference, config)
        assert [step.stops for step in walk.steps] == [stops]


def test_what_a_run_without_the_guard_finished_is_not_finished_for_one_with_it(copy):
    """Where a server is told of the run, it fails there; without one it must not seem done."""
    loose, strict = CONFIG.recommender, CONFIG.recommender.model_copy(update={"guard": True})
    done = []
    for recommender in (loose, strict):
        config = CONFIG.model_copy(update={"recommender": recommender})
        steps = plan(Run(Runtime(root=str(copy))), partial(dpo4rec.stages, config=config))
        assert {step.action for step in steps} == {"reuse"}
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            done.append((needs_no_server(steps), [step.label for step in steps if step.stops]))
    assert done == [(True, []), (False, ["recommender, base"])]


def test_without_a_signal_the_run_ends_with_its_figures_kept_and_told(tmp_path, caplog):
    caplog.set_level("INFO", "tasks.recommender")
    walk = direct(tmp_path / "artifacts")
    with pytest.raises(NoSignalError, match=r"recommender\.guard to false"):
        dpo4rec.begin(walk, GUARDED)
    kept = walk.artifact("recommender, base")
    assert kept.manifest.figures["signal"] is False
    difference = kept.manifest.figures["log_prob_difference"]
    assert f"without any; difference {difference:+.4f} [" in caplog.text  # also with --stop-after
    assert "reasonings for valid, base" not in walk.done


def test_going_on_regardless_fits_nothing_anew():
    strict, loose = RecommenderConfig(guard=True), RecommenderConfig(guard=False)
    assert strict.identity() == loose.identity()
    assert strict.identity()["guard"] is True


def figures(difference, half, users=100):
    return {
        "signal": False, "users": users, "log_prob_real": -5.0, "log_prob_shuffled": -5.0,
        "log_prob_no_text": -5.0, "log_prob_difference": difference,
        "log_prob_low": difference - half, "log_prob_high": difference + half,
    }  # fmt: skip


def test_it_is_told_how_many_users_a_difference_of_this_size_takes():
    # A difference of one standard error: 2.80 of them are needed, 100 (2.80 / 1)^2.
    for users, half in ((5, 0.02776), (100, 0.01984), (10_000, 0.0196)):  # by Student's t
        needed = users_needed(figures(0.01, half, users))
        assert needed == pytest.approx(7.849 * users, rel=0.001, abs=1)
    with pytest.raises(NoSignalError, match=r"what 100 held-out users.* some 785 held-out users"):
        require_signal(figures(0.01, 0.019842))
    assert users_needed(figures(-0.01, 0.02)) is None
    for nothing_more in (figures(-0.01, 0.02), figures(0.0005, 0.0001)):
        with pytest.raises(NoSignalError, match=r"at least 0\.001 nats\. Look at"):
            require_signal(nothing_more)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(-0.02, 0.01, "[−0.0100, +0.0200]"), (-0.03, -0.01, ""), (-0.03, -0.01, "too few users")],
)
def test_a_signal_that_validation_does_not_confirm_is_told(tmp_path, low, high, told):
    n_users = 5 if told == "too few users" else 500
    rows = [
        ("shuffled", "shuffled", "sampled", "frozen", low, high),
        ("Base policy, sampled", "base", "sampled", "frozen", -0.01, 0.0),
    ]
    lines = [
        dict.fromkeys(RESULTS)
        | {"row": row, "policy": policy, "decoding": decoding, "recommender": recommender,
           "lists": "catalogue", "measure": "NDCG", "k": 10, "mean": 0.1, "n_users": n_users,
           "difference": -0.005, "difference_low": first, "difference_high": last}
        for row, policy, decoding, recommender, first, last in rows
    ]  # fmt: skip
    pl.DataFrame(lines, schema=RESULTS).write_parquet(tmp_path / RESULTS.file)
    opened: Any = SimpleNamespace(path=lambda name: tmp_path / name)
    store = SimpleNamespace(open=lambda reference: opened)
    run: Any = SimpleNamespace(plan_only=False, store=store)
    said = unconfirmed(run, opened)
    assert bool(said) == bool(told)
    if told:
        assert f"own texts change NDCG@10 by +0.0050 {told} against" in said
        assert f"({n_users} users)" in said
