"""What the server shows of a run that computed or reused all: name, graph, pages, log lines."""

import re

import httpx
import pytest

from flows.session import LOGGERS


@pytest.fixture(scope="module")
def page(recalign, prefect_api, finished, tmp_path_factory):
    """A second, fully cached run: itself, its graph, its artifacts and its log lines."""

    def ask(kind, **wanted):
        return httpx.post(f"{prefect_api}/{kind}/filter", json=wanted, timeout=30).json()

    def runs_at(root):
        runs = ask("flow_runs", sort="START_TIME_DESC")
        # Other tests of this server may have run flows that have no such parameter.
        roots = [run["parameters"].get("runtime", {}).get("root") for run in runs]
        return [run for run, its_root in zip(runs, roots, strict=True) if its_root == str(root)]

    root = finished
    if not runs_at(root):  # another test process has made it, which has a server of its own
        root = tmp_path_factory.mktemp("page") / "artifacts"
        recalign("run", "dpo4rec", "--preset", "tiny", "--root", str(root))
    recalign("run", "dpo4rec", "--preset", "tiny", "--root", str(root))
    run, computed = runs_at(root)
    of_run = {"id": {"any_": [run["id"]]}}
    return {
        "root": root,
        "run": run,
        "graph": graph_of(prefect_api, run),
        "computed": graph_of(prefect_api, computed),
        "artifacts": ask("artifacts", flow_runs=of_run),
        "tasks": ask("task_runs", flow_runs=of_run),
        "logs": ask("logs", logs={"flow_run_id": of_run["id"]}),
        "tasks_computed": ask("task_runs", flow_runs={"id": {"any_": [computed["id"]]}}),
        "logs_computed": ask("logs", logs={"flow_run_id": {"any_": [computed["id"]]}}),
    }


def graph_of(api, run):
    return httpx.get(f"{api}/flow_runs/{run['id']}/graph-v2", timeout=30).json()


def parents(graph):
    """The labels above each label."""
    labels = {node["id"]: node["label"] for _, node in graph["nodes"]}
    return {
        node["label"]: {labels[parent["id"]] for parent in node["parents"]}
        for _, node in graph["nodes"]
    }


def test_every_stage_was_reused_and_the_run_says_what_it_is(page):
    assert {task["state"]["name"] for task in page["tasks"]} == {"Cached"}
    assert page["run"]["name"] == "dpo4rec tiny on synthetic, 2 rounds"
    assert set(page["run"]["tags"]) == {"dpo4rec", "data: synthetic", "preset: tiny"}
    assert page["run"]["state"]["message"] == "2 of 2 rounds"


def test_the_graph_leaves_out_an_edge_where_a_path_through_other_stages_says_the_same(page):
    above = parents(page["graph"])
    assert above["interactions"] == set()
    assert above["oracle"] == above["policy"] == {"splits"}
    assert above["rewards, round 1"] == {"reasonings for reward, base", "recommender, base"}
    assert above["pairs, round 1"] == {"rewards, round 1"}
    assert above["alignment, round 1"] == {"pairs, round 1"}
    assert all(above[label] for label in above if label != "interactions")


def test_a_run_that_computed_everything_draws_the_same_edges_as_one_that_reused_it(page):
    above, reused = parents(page["computed"]), parents(page["graph"])
    assert len(above) == 30
    assert above == reused
    nodes = [node for _, node in page["computed"]["nodes"]]
    drawn = {(node["id"], child["id"]) for node in nodes for child in node["children"]}
    assert len(drawn) == sum(map(len, above.values())) < 70


def test_every_cached_stage_has_a_page_on_its_own_task_run(page):
    shown = {a["task_run_id"]: a for a in page["artifacts"] if a["task_run_id"]}
    for task in page["tasks"]:
        artifact = shown[task["id"]]
        assert artifact["description"] == task["name"]
        assert artifact["data"].startswith("**")
    pictures = {a["description"] for a in shown.values() if "data:image/svg+xml" in a["data"]}
    assert {"splits", "oracle", "policy", "rewards, round 1", "pairs, round 1",
            "alignment, round 1", "evaluation"} <= pictures  # fmt: skip


def test_the_run_has_its_plan_its_results_with_intervals_and_the_reports_path(page):
    by_key = {artifact["key"]: artifact for artifact in page["artifacts"]}
    assert "30 steps: 30 reused, 0 to do" in by_key["plan"]["description"]
    assert "`oracle.epochs=4`" in by_key["plan"]["description"]
    assert '"95 % interval": "[0.' in by_key["results"]["data"]
    (path,) = page["root"].glob("report/*/report.html")
    assert by_key["outcome"]["data"] == f"The report is `{path}`."


def test_library_log_lines_are_in_the_ui(page):
    assert "30 steps: 30 reused, 0 to do" in {line["message"] for line in page["logs"]}


def test_every_log_line_of_a_stage_names_it_and_the_oracle_tells_its_epochs(page):
    names = {task["id"]: task["name"] for task in page["tasks_computed"]}
    told = [
        (names[line["task_run_id"]], line["message"])
        for line in page["logs_computed"]
        if line["task_run_id"] and line["name"].partition(".")[0] in LOGGERS
    ]
    assert {"oracle", "oracle, independent"} <= {name for name, _ in told}
    assert [line for name, line in told if not line.startswith(name)] == []
    epoch = r"oracle: epoch (\d) of 4, loss \d+\.\d+, valid NDCG@10 0\.\d+"
    found = [re.fullmatch(epoch, line) for name, line in told if name == "oracle"]
    assert sorted(one[1] for one in found if one) == ["1", "2", "3", "4"]
