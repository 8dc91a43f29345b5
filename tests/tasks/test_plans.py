"""What a plan tells when raw files are not here yet, and what a run is called."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import prefect.runtime
import pytest
from prefect.utilities.names import generate_slug

from flows.dpo4rec import STAGES, dpo4rec, stages
from flows.rosepo import one_strategy
from flows.rounds import good_rounds
from flows.session import outlook, plan, plan_row, prepare
from flows.sweep import sweep_name
from recalign.artifacts.remote import Remote
from recalign.artifacts.series import Generation, Series, SeriesRound
from recalign.config import DPO4RecConfig, RosePOConfig, Runtime
from recalign.config.presets import load_settings
from recalign.config.sweep import Sweep
from recalign.errors import UserError
from recalign.metric_columns import SCORE
from tasks import comparison
from tasks.engine.run import FORCED, UNKNOWN, Run
from tasks.engine.run_names import is_generated, name_of
from tasks.evaluation import validation_score
from tests.tasks.tiny_run import CONFIG


def planned(root, preset):
    config = load_settings(DPO4RecConfig, preset)
    return plan(Run(Runtime(root=str(root))), lambda run: stages(run, config))


def test_a_plan_downloads_nothing_and_says_what_a_run_would_download(tmp_path):
    steps = {step.label: step for step in planned(tmp_path / "root", "ml-100k")}
    first = steps["interactions"]
    assert (first.action, first.reason) == ("unknown", "ml-100k.zip would be downloaded first")
    assert plan_row(first)["artifact"] == "interactions/unknown"
    assert steps["splits"].reason == "known once interactions is"
    assert {step.reference.fingerprint for step in steps.values()} == {UNKNOWN}
    assert "30 not known before a download" in outlook(list(steps.values()))
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


@pytest.fixture
def nothing_is_fetched(finished, tmp_path, monkeypatch):
    """The root of the finished run as a URL that only manifests may be read from."""

    def fetch(remote, stage, key, manifest, folder):
        raise AssertionError(f"{manifest.reference.name} is fetched")

    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "copies"))
    monkeypatch.setattr(Remote, "fetch", fetch)
    return f"file://{finished.store.root}"


def test_a_plan_at_a_url_reads_manifests_alone(nothing_is_fetched):
    run = Run(Runtime(root=nothing_is_fetched))
    steps = plan(run, lambda walk: stages(walk, CONFIG))
    assert {step.action for step in steps} == {"reuse"}


def test_what_is_asked_of_an_artifacts_figures_alone_fetches_nothing(nothing_is_fetched, finished):
    run: Any = Run(Runtime(root=nothing_is_fetched))
    aligned, judged = (finished.done[f"{what}, round 1"] for what in ("alignment", "validation"))
    figures = finished.store.open(aligned).manifest.figures
    told: list[dict[str, Any]] = []
    run.require(aligned, told.append)
    assert told == [figures]
    assert validation_score(run, judged) == finished.store.open(judged).manifest.figures[SCORE]
    texts = finished.artifact("reasonings for test, round 1")  # by that policy
    assert comparison._trained(run, texts) == figures
    with pytest.raises(UserError, match="was computed anew since"):
        run.require(aligned.model_copy(update={"digest": "0" * 32}), told.append)
    with pytest.raises(UserError, match="is missing or damaged: run again"):
        run.require(aligned.model_copy(update={"fingerprint": "0" * 32}), told.append)


def test_rounds_are_good_while_the_settings_lead_to_their_policies_and_their_validations(finished):
    made = finished.done
    at = {"run": "first", "started": datetime.now(UTC), "finished": datetime.now(UTC)}
    rounds = [
        SeriesRound(number=0, validation=0.3, **at),
        SeriesRound(number=1, validation=0.4, alignment=made["alignment, round 1"], **at),
    ]
    generation = Generation(began=at["started"], reason="the first", rounds=rounds, stages=made)
    series = Series(name="news", generations=[generation])
    assert good_rounds(finished, series, CONFIG) == (rounds, 1)
    for stage, changed, kept in (
        ("reasonings", {"n_eval_samples": 4}, 1),
        (
            "evaluation",
            {"n_resamples": 500},
            1,
        ),  # the yardstick: the policy is still worth its cost
        ("alignment", {"beta": 0.2}, 0),
    ):
        other = getattr(CONFIG, stage).model_copy(update=changed)
        led = good_rounds(finished, series, CONFIG.model_copy(update={stage: other}))
        assert led == ([], kept), stage


def test_an_artifact_that_a_flow_asks_for_twice_is_one_step(tmp_path):
    config = load_settings(RosePOConfig, "tiny")
    steps = plan(Run(Runtime(root=str(tmp_path))), lambda run: one_strategy(run, config))
    keys = [step.reference.fingerprint for step in steps]
    assert len(keys) == len(set(keys))


def test_a_control_that_prefers_nothing_is_the_same_whatever_the_beta(tmp_path):
    def aligned(beta):
        changed = [f"alignment.beta={beta}", 'recommendations.controls=["continued"]']
        config = load_settings(RosePOConfig, "tiny", changed)
        steps = plan(Run(Runtime(root=str(tmp_path))), lambda run: one_strategy(run, config))
        named = {step.label: step.reference.fingerprint for step in steps}
        return {name: key for name, key in named.items() if name.startswith("alignment, ")}

    weak, strong = aligned(0.1), aligned(0.5)
    assert [name for name in weak if weak[name] == strong[name]] == [
        "alignment, SFT continued, self_hard items"
    ]
    assert len(weak) == 2


@pytest.mark.parametrize("option", ["force", "stop_after"])
def test_a_stage_that_these_settings_never_reach_is_refused(tmp_path, option):
    config = load_settings(DPO4RecConfig, "tiny")
    name, runtime = "item_reasonings", Runtime(root=str(tmp_path))
    force = frozenset({name}) if option == "force" else frozenset()
    run = Run(runtime, force, name if option == "stop_after" else "")
    with pytest.raises(UserError, match=f"{option}: as its settings are, this run has no stage"):
        prepare(run, STAGES, lambda walk: stages(walk, config))


@pytest.mark.parametrize(
    ("preset", "changed", "expected"),
    [
        ("", [], "dpo4rec on synthetic, 2 rounds"),
        ("ml-100k", [], "dpo4rec ml-100k on ml-100k, 2 rounds"),
        (
            "tiny", ["alignment.epochs=3", "rounds.n=1"],
            "dpo4rec tiny on synthetic, 1 round, alignment.epochs=3, rounds.n=1",
        ),
        (
            "amazon-beauty", ["oracle.seed=1", "splits.seed=2", "rounds.n=1"],
            "dpo4rec amazon-beauty on amazon Beauty 2014, 1 round, 3 settings changed",
        ),
    ],
)  # fmt: skip
def test_a_run_is_named_by_its_preset_data_rounds_and_changes(
    monkeypatch, preset, changed, expected
):
    given = SimpleNamespace(tags=["mine", *([f"preset: {preset}"] if preset else [])])
    monkeypatch.setattr(prefect.runtime, "flow_run", given)
    start = load_settings(DPO4RecConfig, preset)
    config = load_settings(DPO4RecConfig, preset, changed)
    assert name_of("dpo4rec", start, config) == expected
    assert name_of("dpo4rec", start, config, "pairs") == f"{expected}, until pairs"


@pytest.mark.parametrize(
    "name", ["curious-otter", "alpha12-leonis-void", "pi-sagittae", "Small-Zebra"]
)
def test_names_that_prefect_makes_up_are_known(name):
    assert is_generated(name)


def test_what_a_person_types_is_not_taken_for_a_made_up_name():
    for name in ("my run", "high-beta", "dpo4rec", "Small", "beta", "ticket-1234", "run-for-ann"):
        assert not is_generated(name)


def test_every_name_that_prefects_server_makes_up_is_known():
    assert all(is_generated(generate_slug(2)) for _ in range(300))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Sweep(), "sweep of dpo4rec on synthetic"),
        (
            Sweep(over=["alignment.loss=dpo,ipo"], seeds=3),
            "sweep of dpo4rec on synthetic over alignment.loss, 3 seeds",
        ),
        (Sweep(preset="ml-100k", rows="a.toml"), "sweep of dpo4rec on ml-100k over a.toml"),
    ],
)
def test_a_sweep_is_named_by_its_data_and_by_what_it_varies(asked, expected):
    config = load_settings(DPO4RecConfig, asked.preset)
    assert sweep_name("dpo4rec", config.interactions.name, asked) == expected


def test_plan_only_ends_completed_with_the_plan_and_computes_nothing(prefect_server, tmp_path):
    root = tmp_path / "root"
    state: Any = dpo4rec(
        plan_only=True, force=["splits"], config=load_settings(DPO4RecConfig, "tiny"),
        runtime=Runtime(root=str(root)), return_state=True,
    )  # fmt: skip
    assert state.is_completed()
    assert state.message == "Only planned, as asked: 30 steps: 0 reused, 30 to do"
    assert not list(root.glob("[!.]*"))
    of_run = {"id": {"any_": [str(state.state_details.flow_run_id)]}}
    ask = {"flow_runs": of_run}
    with httpx.Client(base_url=prefect_server, timeout=30) as api:
        (shown,) = api.post("/artifacts/filter", json=ask).json()
        task_runs = api.post("/task_runs/filter", json=ask).json()
    assert shown["key"] == "plan"
    assert '"why": "forced"' in shown["data"]
    assert task_runs == []
