"""The deployments of prefect.yaml on a real server, run by a real worker."""

import time
from typing import Any, get_args

import httpx

from flows.dpo4rec import STAGES
from flows.service.deployments import put_before
from recalign.artifacts.journals import PATTERN
from recalign.config import (
    DPO4RecConfig,
    InteractionsConfig,
    RecommendConfig,
    RosePOConfig,
    Runtime,
)
from recalign.config.presets import changes, complete, load_settings
from tasks.engine.run_names import flat


def test_every_deployment_is_registered_with_settings_that_are_valid(deployments):
    methods = {
        "dpo4rec": DPO4RecConfig, "dpo4rec-rounds": DPO4RecConfig, "rosepo": RosePOConfig,
        "recommend": RecommendConfig, "recommend-nightly": RecommendConfig,
    }  # fmt: skip
    assert set(deployments) == {*methods, "sweep"}
    assert all(deployment["parameters"] == {} for deployment in deployments.values())
    for name, model in methods.items():
        form = deployments[name]["parameter_openapi_schema"]["properties"]["config"]["default"]
        assert isinstance(complete(model(), form), model)


def test_scheduled_rounds_are_shipped_paused_and_never_overlap(deployments):
    rounds = deployments["dpo4rec-rounds"]
    assert [one["active"] for one in rounds["schedules"]] == [False]
    assert rounds["global_concurrency_limit"]["limit"] == 1
    assert rounds["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    name = rounds["parameter_openapi_schema"]["properties"]["series"]
    assert (name["default"], name["pattern"]) == ("dpo4rec", PATTERN)


def test_the_nightly_refresh_is_shipped_paused_and_never_overlaps(deployments):
    nightly = deployments["recommend-nightly"]
    assert [one["active"] for one in nightly["schedules"]] == [False]
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_the_form_knows_title_description_bounds_and_choices(deployments):
    schema = deployments["dpo4rec"]["parameter_openapi_schema"]
    beta = schema["definitions"]["AlignmentConfig"]["properties"]["beta"]
    assert beta["title"] == "Beta"
    assert "Strength" in beta["description"]
    assert (beta["exclusiveMinimum"], beta["maximum"]) == (0, 10)
    source = schema["definitions"]["InteractionsConfig"]["properties"]["source"]
    assert tuple(source["enum"]) == get_args(InteractionsConfig.model_fields["source"].annotation)
    assert {"synthetic", "ml-100k", "amazon", "steam", "files"} < set(source["enum"])
    form = sorted(schema["properties"].items(), key=lambda entry: entry[1]["position"])
    assert [(name, title_of(field, schema)) for name, field in form] == [
        ("plan_only", "Only plan"),
        ("force", "Stages to compute anew"),
        ("stop_after", "Last stage"),
        ("config", "Settings of every stage"),
        ("runtime", "Where and how to compute"),
    ]
    fields = dict(form)
    told = schema["definitions"]["DPO4RecConfig"]["properties"]
    first = sorted(told, key=lambda name: told[name]["position"])[:5]
    assert first == ["interactions", "policy", "reasonings", "alignment", "rounds"]
    titles = [definition["title"] for definition in schema["definitions"].values()]
    assert not [title for title in titles if "Config" in title or title in schema["definitions"]]
    assert fields["force"]["items"]["enum"] == [stage.name for stage in STAGES]
    assert fields["stop_after"]["enum"] == ["", *(stage.name for stage in STAGES)]
    assert all(field["description"] for field in fields.values())


def title_of(field, schema):
    """What the form calls a field; one without a title is called as its section is."""
    section = schema["definitions"].get(field.get("$ref", "").rpartition("/")[2], {})
    return field.get("title", section.get("title"))


def test_no_form_calls_a_parameter_by_its_name_in_code(deployments):
    for name, deployment in deployments.items():
        schema = deployment["parameter_openapi_schema"]
        fields = schema["properties"].items()
        raw = [field for field, told in fields if title_of(told, schema) == field]
        assert not raw, name


def test_every_field_of_the_form_has_a_description_and_a_plain_control(deployments):
    """Nothing to be typed as JSON: no free objects, no unions, no lists of lists."""
    schema = deployments["dpo4rec"]["parameter_openapi_schema"]
    plain = ("string", "integer", "number", "boolean")
    assert len(schema["definitions"]) > 15
    for model, definition in schema["definitions"].items():
        for name, field in definition["properties"].items():
            inner = schema["definitions"].get(field.get("$ref", "").rpartition("/")[2], {})
            assert field.get("description", inner.get("description")), f"{model}.{name}"
            kind = field["items"]["type"] if field.get("type") == "array" else field.get("type")
            assert kind in plain or "$ref" in field, f"{model}.{name}"


def test_out_of_bounds_is_refused_before_there_is_a_run(prefect_api, deployments):
    for wrong, message in (
        ({"config": {"alignment": {"beta": 11}}}, "config.alignment.beta"),
        ({"force": ["orcale"]}, "force[0]"),
    ):
        refused = create(prefect_api, deployments["dpo4rec"], wrong)
        assert refused.status_code == 409
        assert message in refused.json()["detail"]


def create(api, deployment, parameters, name=""):
    """The server's answer; one that is busy with its database is asked again, as Prefect does."""
    url = f"{api}/deployments/{deployment['id']}/create_flow_run"
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    body |= {"name": name} if name else {}
    deadline = time.monotonic() + 60
    while (answer := httpx.post(url, json=body, timeout=30)).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(1)
    return answer


def task_states(api, run):
    """Name and state of every task run of a flow run."""
    found = httpx.post(
        f"{api}/task_runs/filter", json={"flow_runs": {"id": {"any_": [run]}}}, timeout=30
    )
    return {task["name"]: task["state"]["name"] for task in found.json()}


def test_runs_from_the_form_are_refused_computed_and_copied(
    prefect_api, deployments, worker, tmp_path
):
    deployment = deployments["dpo4rec"]
    edited = f"{prefect_api}/deployments/{deployment['id']}"  # by another test of this server
    httpx.patch(edited, json={"parameters": {}}).raise_for_status()
    root = tmp_path / "artifacts"
    form: dict[str, Any] = {  # a form submits every field
        "config": load_settings(DPO4RecConfig, "tiny").model_dump(mode="json"),
        "stop_after": "splits",
        "runtime": Runtime(root=str(root)).model_dump(mode="json"),
    }  # fmt: skip
    mistaken = form | {"config": form["config"] | {"oracle": {"hidden": 33, "heads": 2}}}
    run = worker.finished(create(prefect_api, deployment, mistaken))
    assert run["state"]["type"] == "FAILED"
    assert "oracle: heads must divide hidden" in run["state"]["message"]
    assert "\n" not in run["state"]["message"]
    assert task_states(prefect_api, run["id"]) == {}
    assert not root.exists()

    first = worker.finished(create(prefect_api, deployment, form, "for Ann"))
    n_changed = len(flat(changes(DPO4RecConfig(), load_settings(DPO4RecConfig, "tiny"))))
    n_changed -= 3  # of the data: the world's sizes
    ours = f"dpo4rec on synthetic, 2 rounds, {n_changed} settings changed, until splits"
    assert first["name"] == f"for Ann: {ours}"
    assert {"dpo4rec", "data: synthetic"} <= set(first["tags"])
    assert first["state"]["message"] == "Stopped after splits, as asked"
    assert task_states(prefect_api, first["id"]) == dict.fromkeys(
        ("interactions", "splits"), "Completed"
    )
    (manifest,) = root.glob("interactions/*/manifest.json")
    assert '"n_users": 240' in manifest.read_text()

    copied = first["parameters"]
    copied["config"]["splits"]["test"] = 5
    second = worker.finished(create(prefect_api, deployment, copied))
    assert second["name"] == ours.replace(str(n_changed), str(n_changed + 1))
    assert task_states(prefect_api, second["id"]) == {
        "interactions": "Cached", "splits": "Completed",
    }  # fmt: skip
    assert "config.test: 6 -> 5" in plan_of(prefect_api, second["id"])


def test_a_garbled_memory_of_what_was_put_is_an_empty_one(tmp_path, capsys):
    record = tmp_path / "deployments.json"
    assert (put_before(record), capsys.readouterr().out) == ({}, "")
    for garbled in ("", "{", "null"):
        record.write_text(garbled)
        assert put_before(record) == {}
        assert f"{record} is garbled" in capsys.readouterr().out


def plan_of(api, run):
    artifacts = httpx.post(
        f"{api}/artifacts/filter", json={"flow_runs": {"id": {"any_": [run]}}}, timeout=30
    ).json()
    (plan,) = [one for one in artifacts if one["key"] == "plan"]
    assert plan["created"] == min(one["created"] for one in artifacts)
    return plan["data"]
