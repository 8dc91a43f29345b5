"""A ~ that no shell has expanded: in `--root=~/x`, an environment file, a form, or Python."""

from pathlib import Path

import pytest
import typer.testing

import recalign
from flows.cli.app import app
from flows.cli.runs import RunOptions
from flows.service.record import home_of, presets_folder
from recalign.artifacts.roots import local_root
from recalign.config import RecommendConfig, Runtime
from recalign.errors import UserError
from recalign.llm.published import SMOLLM2, fetched_folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home, and a working folder beside it, in which nothing may appear."""
    place, work = tmp_path / "home", tmp_path / "work"
    (place / "made").mkdir(parents=True)
    work.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(work)
    yield str(place)
    assert list(work.iterdir()) == []


def test_the_root_lies_there_however_it_is_named(home, monkeypatch):
    assert Runtime(root="~/made").root == f"{home}/made"
    assert RunOptions(root="~/made").runtime().root == f"{home}/made"
    assert recalign.open("~/made").root == f"{home}/made"
    assert recalign.open(Path("~/made")).store.root == Path(home) / "made"
    monkeypatch.setenv("RECALIGN_ROOT", "~/made")
    assert Runtime().root == f"{home}/made"
    assert home_of(f"{home}/made", Path("~/service")) == Path(home) / "service"
    assert presets_folder("~/made", Path("/service")) == Path(home) / "made" / "presets"


@pytest.mark.parametrize("way", ["option", "environment"])
def test_commands_look_there(home, way):
    environment = {"RECALIGN_ROOT": "~/nowhere"} if way == "environment" else {}
    option = ["--root=~/nowhere"] if way == "option" else []
    done = typer.testing.CliRunner().invoke(app, ["ls", *option], env=environment)
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"no artifacts at {home}/nowhere;")


def test_so_do_the_files_of_recommendations(home):
    named = {"users": "~/u.csv", "interactions": "~/n.csv", "template": "~/t.txt"}
    config = RecommendConfig(**named, output="~/recs.csv")
    assert config.output == f"{home}/recs.csv"
    assert config.given == {name: path.replace("~", home) for name, path in named.items()}


def test_so_do_the_copies_of_a_url_and_fetched_llms(home, monkeypatch):
    monkeypatch.setenv("RECALIGN_CACHE", "~/copies")
    assert local_root("s3://bucket/a").parent == Path(home) / "copies"
    assert fetched_folder(SMOLLM2) == Path(home) / "copies" / "models" / "smollm2"


def test_urls_and_unknown_users_stay_as_they_are(home):
    assert Runtime(root="s3://bucket/~/a").root == "s3://bucket/~/a"
    assert Runtime(root="~nobody-of-this-name/a").root == "~nobody-of-this-name/a"
    assert RecommendConfig(template="movies", output="a~.csv").template == "movies"
