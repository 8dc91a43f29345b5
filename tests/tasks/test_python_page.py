"""docs/python.md and the notebook beside it as they stand, next to a finished run; what
`recalign.open` gives is that run's."""

import runpy
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import recalign
from recalign.errors import UserError
from recalign.schemas import COMPLETIONS, RESULTS, REWARDS
from tests.test_docs import FENCED

PAGE = Path(__file__).parent.parent.parent / "docs" / "python.md"


@pytest.fixture
def beside(finished, tmp_path, monkeypatch):
    """A working folder with the finished run as `artifacts`."""
    (tmp_path / "artifacts").symlink_to(finished.store.root)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("beside")
def test_every_block_of_the_page_runs_as_it_stands(capsys):
    blocks = [code for kind, code in FENCED.findall(PAGE.read_text()) if kind == "python"]
    assert len(blocks) >= 7
    names: dict = {}
    for number, code in enumerate(blocks):
        exec(compile(code, f"{PAGE.name}, block {number + 1}", "exec"), names)
        assert capsys.readouterr().out.strip(), f"block {number + 1} prints nothing"
    assert {"Aligned policy, greedy", "Aligned policy, sampled"} <= set(names["best"]["row"])
    assert names["ranks"].tolist() == [[1, 2]]


@pytest.mark.usefixtures("beside")
def test_the_notebook_runs_as_it_stands_and_shows_the_run(finished, capsys):
    names = runpy.run_path(str(PAGE.with_name("first_look.py")))
    told = capsys.readouterr().out
    assert told.startswith(finished.artifact("report").reference.name)
    pairs = COMPLETIONS.read(finished.artifact("pairs, round 1"))
    widest = max(max(rewards) - min(rewards) for rewards in pairs["rewards"])
    shown = [names["pair"]["rewards"][names[place]] for place in ("chosen", "rejected")]
    assert shown[0] - shown[1] == pytest.approx(widest)
    assert names["recs"].filter(rank=1).height == 50
    assert names["listed"]["users"].sum() == 500


def test_a_run_gives_its_own_tables(finished):
    run = recalign.open(finished.store.root).latest("dpo4rec")
    assert run.name == finished.artifact("report").reference.name
    assert run.page.read_text().startswith("<!doctype html>")
    assert run.results.equals(RESULTS.read(finished.artifact("evaluation")))
    pairs = COMPLETIONS.read(finished.artifact("pairs, round 1"))
    assert run.pairs.drop("made_by").equals(pairs)
    assert run.pairs["made_by"].unique().to_list() == ["pairs_1"]
    assert run.rewards.drop("made_by").equals(REWARDS.read(finished.artifact("rewards, round 1")))
    assert recalign.open(finished.store.root).run(run.name).manifest == run.manifest


def test_recommendations_in_python_are_those_of_the_flow(finished, copy):
    from flows.serving.recommend import chosen, stages
    from recalign.config import RecommendConfig
    from recalign.schemas import SERVING
    from tests.tasks.tiny_run import direct

    walk, config = direct(copy), RecommendConfig(k=4)
    table = SERVING.read(walk.store.open(stages(walk, config, chosen(walk.store, config))))
    users = table["user_id"].unique(maintain_order=True)[[7, 3]].to_list()
    own = recalign.open(copy).latest().recommend([*users, "nobody", users[0]], k=4)
    wanted = pl.concat([table.filter(user_id=user) for user in users])
    assert own.filter(pl.col("why_none").is_null()).drop("score").equals(wanted.drop("score"))
    assert own["why_none"].to_list()[-1] == "no history"
    assert recalign.open(copy).latest().recommend([]).is_empty()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda runs: runs.latest("rosepo"), "no finished run at .*`recalign run rosepo` makes"),
        (lambda runs: runs.latest("dpo5rec"), "no method 'dpo5rec'; there are dpo4rec, rosepo"),
        (lambda runs: runs.run("oracle/"), "name an artifact by its"),
        (lambda runs: recalign.open("/nowhere"), "no artifacts at /nowhere"),
    ],
)
def test_what_is_not_there_is_one_line(finished, asked, message):
    with pytest.raises(UserError, match=message) as told:
        asked(recalign.open(finished.store.root))
    assert "\n" not in str(told.value)


def test_importing_recalign_imports_nothing_heavy():
    code = "import sys, recalign; print([m for m in ('torch', 'polars', 'pydantic', 'numpy') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
