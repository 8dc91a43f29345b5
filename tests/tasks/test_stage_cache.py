"""Prefect's cache over artifact folders: reuse, selective recompute, damage, force, errors."""

import base64
import json
import logging
import pickle
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry

from flows.cli.upkeep import records_of_failures
from flows.session import plan, prepare
from recalign.artifacts.store import Store
from recalign.config import OracleConfig, PairsConfig, Runtime, SplitsConfig
from recalign.errors import UserError
from tasks.engine.run import Run, StoppedAfter
from tasks.engine.stage import Stage

pytestmark = pytest.mark.usefixtures("prefect_server")


def counting(name, version, calls, body=None):
    """A stage that notes each time it really computes."""

    def compute(job, config, **artifacts):
        calls.append(name)
        if body:
            body(job, config, **artifacts)
        job.draft.path("out.txt").write_text(name + "".join(
            artifact.path("out.txt").read_text() for artifact in artifacts.values()
        ))  # fmt: skip

    return Stage(name, version, compute)


class Pipeline:
    """splits -> oracle -> pairs, and what of it was computed."""

    def __init__(self, root):
        self.calls: list[str] = []
        self.runtime = Runtime(root=str(root))
        self.stages = [counting(n, 1, self.calls) for n in ("splits", "oracle", "pairs")]
        self.splits, self.oracle = SplitsConfig(), OracleConfig()

    def walk(self, run):
        first, second, third = self.stages
        cut = run(first, self.splits)
        fitted = run(second, self.oracle, {"splits": cut})
        return run(third, PairsConfig(), {"splits": cut, "oracle": fitted})

    def __call__(self, **options):
        self.calls.clear()
        return self.flow(**options)()

    def flow(self, **options):
        @flow(name="toy")
        def toy():
            run = Run(self.runtime, **options)
            prepare(run, self.stages, self.walk)
            return self.walk(run)

        return toy

    def plan(self, **options):
        return {step.label: step for step in plan(Run(self.runtime, **options), self.walk)}


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path / "root")


def test_a_second_run_computes_nothing_and_the_plan_knew_it(pipeline):
    assert {step.reason for step in pipeline.plan().values()} == {"never computed"}
    first = pipeline()
    assert pipeline.calls == ["splits", "oracle", "pairs"]
    assert [step.action for step in pipeline.plan().values()] == ["reuse"] * 3
    assert pipeline() == first
    assert pipeline.calls == []


def test_a_changed_setting_recomputes_its_stage_and_what_follows(pipeline):
    pipeline()
    pipeline.oracle = OracleConfig(hidden=128)
    planned = pipeline.plan()
    assert planned["oracle"].reason == "config.hidden: 64 -> 128"
    assert planned["pairs"].action != "reuse"
    pipeline()
    assert pipeline.calls == ["oracle", "pairs"]


def test_a_raised_version_recomputes_and_an_edited_body_does_not(pipeline):
    pipeline()
    pipeline.stages[2] = counting("pairs", 1, pipeline.calls, lambda job, config, **a: None)
    pipeline()
    assert pipeline.calls == []
    pipeline.stages[2] = counting("pairs", 2, pipeline.calls)
    assert pipeline.plan()["pairs"].reason == "version: 1 -> 2"
    pipeline()
    assert pipeline.calls == ["pairs"]


@pytest.mark.parametrize("harm", ["delete", "flip", "record", "folder"])
def test_a_damaged_upstream_is_recomputed_and_equal_content_spares_what_follows(pipeline, harm):
    result = pipeline()
    store = Run(pipeline.runtime).store
    reference = store.open(result).manifest.inputs["splits"]
    folder = store.folder("splits", reference.fingerprint)
    if harm == "delete":
        (folder / "out.txt").unlink()
    elif harm == "flip":
        (folder / "out.txt").write_text("splats")
    elif harm == "record":
        (folder / ".prefect-result.json").write_text("{")
    else:
        store.discard("splits", reference.fingerprint)
    assert pipeline() == result
    assert pipeline.calls == ([] if harm == "record" else ["splits"])


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("serializer", ["pickle", "compressed/pickle", "json"])
def test_a_planted_record_runs_no_code_and_no_digest_in_it_is_believed(
    pipeline, tmp_path, serializer
):
    result = pipeline()
    records = sorted(tmp_path.glob("root/*/*/.prefect-result.json"))
    honest = [path.read_bytes() for path in records]
    for path, text in zip(records, honest, strict=True):
        record = json.loads(text)
        if serializer == "json":
            record["result"] = record["result"].replace('"digest": "', '"digest": "0')
        else:
            record["metadata"]["serializer"] = {"type": serializer}
            evil = pickle.dumps(Evil(tmp_path / "executed"))
            evil = zlib.compress(evil) if "/" in serializer else evil
            record["result"] = base64.b64encode(evil).decode()
        assert record != json.loads(text)
        path.write_text(json.dumps(record))
    assert pipeline() == result
    assert pipeline.calls == []
    assert not (tmp_path / "executed").exists()
    assert [path.read_bytes() for path in records] == honest


def test_a_cached_run_leaves_honest_records_as_they_are(pipeline, tmp_path):
    pipeline()
    before = {path: path.stat() for path in tmp_path.glob("root/*/*/.prefect-result.json")}
    assert len(before) == 3
    pipeline()
    assert {path: path.stat().st_mtime_ns for path in before} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_other_content_under_the_same_fingerprint_recomputes_what_follows(pipeline):
    result = pipeline()
    store = Run(pipeline.runtime).store
    store.discard("splits", store.open(result).manifest.inputs["splits"].fingerprint)
    other = lambda job, config: job.draft.path("more.txt").write_text("x")  # noqa: E731
    pipeline.stages[0] = counting("splits", 1, pipeline.calls, other)
    pipeline()
    assert pipeline.calls == ["splits", "oracle", "pairs"]


def test_force_recomputes_the_stage_and_spares_what_follows_if_nothing_changed(pipeline):
    pipeline()
    assert pipeline.plan(force=frozenset({"oracle"}))["pairs"].action == "depends"
    pipeline(force=frozenset({"oracle"}))
    assert pipeline.calls == ["oracle"]


def test_a_retry_does_not_force_what_the_killed_attempt_computed_anew(pipeline):
    pipeline()
    pipeline.calls.clear()
    pipeline.stages[2] = counting("pairs", 2, pipeline.calls, lambda *_, **more: 1 / 0)
    forced = pipeline.flow(force=frozenset({"oracle"}))
    ended = forced(return_state=True).state_details.flow_run_id
    assert pipeline.calls == ["oracle", "pairs"]
    pipeline.calls.clear()
    pipeline.stages[2] = counting("pairs", 2, pipeline.calls)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(ended, AwaitingRetry(), force=True)
        again = client.read_flow_run(ended)
    run_flow(forced, flow_run=again)
    assert pipeline.calls == ["pairs"]
    pipeline(force=frozenset({"oracle"}))  # another run is another wish
    assert pipeline.calls == ["oracle"]


def test_what_is_forced_is_computed_anew_whatever_clock_its_artifact_is_of(pipeline):
    pipeline()
    store = Run(pipeline.runtime).store
    (made,) = store.manifests("oracle")
    later = made.model_copy(update={"created": made.created + timedelta(hours=1)})
    place = store.folder("oracle", made.fingerprint) / "manifest.json"
    place.write_text(later.model_dump_json())
    pipeline(force=frozenset({"oracle"}))
    assert pipeline.calls == ["oracle"]


def test_an_input_that_another_run_replaces_while_it_is_read_makes_no_artifact(pipeline):
    def replace_it(job, config, **artifacts):  # as another run's --force, once the inputs are open
        store, old = Store(job.runtime.root), artifacts["splits"].manifest
        draft = store.draft(old.identity, {})
        draft.path("out.txt").write_text("other content")
        store.commit(draft)

    pipeline.stages[2] = counting("pairs", 1, pipeline.calls, replace_it)
    with pytest.raises(UserError, match=r"splits/.* was computed anew since"):
        pipeline()
    assert list(Store(pipeline.runtime.root).manifests("pairs")) == []
    pipeline.stages[2] = counting("pairs", 1, pipeline.calls)
    pipeline()
    assert pipeline.calls == ["oracle", "pairs"]


def test_a_label_with_braces_is_the_name_of_its_task_run(pipeline):
    label = 'mix={"a":1}: splits'

    @flow(name="braces")
    def labelled():
        return Run(pipeline.runtime)(pipeline.stages[0], pipeline.splits, label=label)

    state: Any = labelled(return_state=True)
    assert pipeline.calls == ["splits"]
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        (made,) = client.read_task_runs(flow_run_filter=of_run)
    assert made.name == label


def test_a_plan_lists_the_earlier_artifacts_of_each_stage_once(pipeline, monkeypatch):
    def many(run):
        for n in range(4):
            run(pipeline.stages[0], SplitsConfig(seed=n), label=f"splits {n}")

    pipeline()
    pipeline.walk, listed, manifests = many, [], Store.manifests

    def list_one(store, stage=None):
        listed.append(stage)
        return manifests(store, stage)

    monkeypatch.setattr(Store, "manifests", list_one)
    planned = pipeline.plan()
    assert [step.reason for step in planned.values()] == [
        "", *(f"config.seed: 0 -> {n}" for n in (1, 2, 3))
    ]  # fmt: skip
    assert listed == ["splits"]


def test_a_run_stops_after_the_named_stage(pipeline):
    with pytest.raises(StoppedAfter):
        pipeline(stop_after="oracle")
    assert pipeline.calls == ["splits", "oracle"]


@pytest.mark.parametrize("option", [{"force": frozenset({"orcale"})}, {"stop_after": "orcale"}])
def test_an_unknown_stage_name_is_refused_before_anything_is_computed(pipeline, option):
    with pytest.raises(UserError, match=r"no stage 'orcale'; there are splits, oracle, pairs"):
        pipeline(**option)
    assert pipeline.calls == []


def test_a_failing_stage_keeps_what_is_upstream_and_its_own_work(pipeline):
    def fail(job, config, **artifacts):
        checkpoint = job.draft.work / "step"
        if not checkpoint.exists():
            checkpoint.write_text("3")
            raise RuntimeError("no such luck")

    pipeline.stages[1] = counting("oracle", 1, pipeline.calls, fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        pipeline()
    assert pipeline.calls == ["splits", "oracle"]
    pipeline()
    assert pipeline.calls == ["oracle", "pairs"]
    root = Path(pipeline.runtime.root)
    assert records_of_failures(root) == [path for path in root.iterdir() if path.name[0] != "."
                                         and path.is_file()] != []  # fmt: skip


def test_a_full_disk_is_told_in_one_line_and_loses_nothing(pipeline):
    def full(job, config, **artifacts):
        raise OSError(28, "No space left on device", str(job.draft.path("out.txt")))

    pipeline.stages[2] = counting("pairs", 1, pipeline.calls, full)
    with pytest.raises(UserError, match="No space left on device"):
        pipeline()
    pipeline.stages[2] = counting("pairs", 1, pipeline.calls)
    pipeline()
    assert pipeline.calls == ["pairs"]


def test_trouble_with_the_record_fails_the_run_instead_of_turning_the_cache_off(pipeline, caplog):
    """Prefect only logs an error in a key function and then runs the task uncached."""
    result = pipeline()
    store = Run(pipeline.runtime).store
    folder = store.open(result).folder
    (folder / "out.txt").unlink()
    (folder / ".prefect-result.json").unlink()
    (folder / ".prefect-result.json").mkdir()
    with (
        caplog.at_level(logging.WARNING, logger="prefect"),
        pytest.raises(UserError, match=r"pairs: .*prefect-result"),
    ):
        pipeline()
    assert pipeline.calls == []
    assert "cache key" not in caplog.text.lower()


def test_a_stage_forced_behind_the_last_one_is_refused(pipeline):
    with pytest.raises(UserError, match="force: pairs comes after stop_after oracle"):
        pipeline(force=frozenset({"pairs"}), stop_after="oracle")
    assert pipeline.calls == []


def test_the_plan_says_when_a_manifest_is_damaged(pipeline):
    store = Run(pipeline.runtime).store
    result = pipeline()
    (store.folder("pairs", result.fingerprint) / "manifest.json").write_text("{")
    assert pipeline.plan()["pairs"].reason == "its files are missing or damaged"
    assert pipeline() == result
    assert pipeline.calls == ["pairs"]


def test_the_plan_compares_with_the_artifact_of_the_same_step(pipeline):
    splits, oracle, pairs = pipeline.stages

    def rounds(run):
        cut = run(splits, pipeline.splits)
        fitted = run(oracle, pipeline.oracle, {"splits": cut})
        first = run(pairs, PairsConfig(), {"splits": cut}, label="round 1")
        return run(pairs, PairsConfig(), {"splits": cut, "oracle": fitted, "last": first},
                   label="round 2")  # fmt: skip

    pipeline.walk = rounds
    pipeline()
    before = pipeline.plan()["oracle"].reference.fingerprint
    pipeline.oracle = OracleConfig(hidden=128)
    planned = pipeline.plan()
    after = planned["oracle"].reference.fingerprint
    assert planned["round 2"].reason == f"inputs.oracle: {before[:10]} -> {after[:10]}"


def test_the_plan_compares_rounds_of_equal_shape_each_with_itself(pipeline):
    splits, oracle, pairs = pipeline.stages

    def rounds(run):
        for number in (1, 2):
            cut = run(splits, SplitsConfig(seed=number), label=f"splits {number}")
            fitted = run(oracle, pipeline.oracle, {"splits": cut}, label=f"oracle {number}")
            run(pairs, PairsConfig(), {"oracle": fitted}, label=f"pairs {number}")

    pipeline.walk = rounds
    pipeline()
    before = {label: step.reference.fingerprint for label, step in pipeline.plan().items()}
    pipeline.oracle = OracleConfig(hidden=128)
    for number in (1, 2):
        planned = pipeline.plan()
        ends = before[f"oracle {number}"], planned[f"oracle {number}"].reference.fingerprint
        told = f"inputs.oracle: {ends[0][:10]} -> {ends[1][:10]}"
        assert planned[f"pairs {number}"].reason == told
