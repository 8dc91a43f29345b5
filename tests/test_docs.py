"""The pages for people: what they link to, name and tell to type is there."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

from flows.cli.app import app
from flows.methods import METHODS
from recalign.config import DPO4RecConfig, Runtime
from recalign.config.presets import load_settings, preset_names
from recalign.config.sweep import Sweep

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")])
COMMANDS = typer.main.get_group(app).commands
MODELS = {method.name: method.config for method in METHODS}
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OWN_PATH = re.compile(r"(?:recalign|tasks|flows|tests|benchmarks|docs|data)/[a-z0-9_./-]*")


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def code_of(text):
    """Lines of code blocks without their comments, and inline code, each on one line."""
    for _, block in FENCED.findall(text):
        yield from (line.partition(" #")[0].strip() for line in block.splitlines())
    yield from (" ".join(code.split()) for code in INLINE.findall(FENCED.sub("", text)))


def commands_of(path, program):
    """The words after the program's name, for each time a page says to run it."""
    for code in code_of(path.read_text()):
        line = re.sub(r"^(\$ |\S*=\S+ )+", "", code)
        if line.startswith(f"{program} "):
            yield shlex.split(line)[1:]


def sections_of(path):
    """What a link may name after the #, as GitHub makes it from a heading."""
    for heading in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_readme_is_read_in_one_sitting_and_starts_with_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    first = FENCED.findall(text)[0][1].splitlines()
    assert [line.split()[:2] for line in first] == [["make", "demo"], ["make", "test"]]
    assert len(list(commands_of(ROOT / "README.md", "recalign"))) >= 10


def test_links_and_pictures_lead_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if link.startswith("http"):
            continue
        name, _, section = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not section or section in sections_of(target), link


def test_files_that_a_page_names_are_there(page):
    for code in code_of(page.read_text()):
        for word in code.split():
            if OWN_PATH.fullmatch(word):
                assert (ROOT / word).exists(), word


def test_every_package_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = [
        file.parent.relative_to(ROOT).as_posix()
        for layer in ("recalign", "tasks", "flows")
        for file in [ROOT / layer / "__init__.py", *(ROOT / layer).glob("*/__init__.py")]
    ]
    assert len(packages) > 20
    assert [name for name in [*packages, "benchmarks"] if f"| `{name}/` |" not in text] == []


def test_commands_and_their_options_exist(page):
    for words in commands_of(page, "recalign"):
        if words[0].isupper():  # recalign COMMAND --help
            continue
        command = COMMANDS[words[0]]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for word in words[1:]:
            assert not word.startswith("-") or word.partition("=")[0] in known, words


def test_settings_and_presets_exist(page):
    for words in commands_of(page, "recalign"):
        if words[0] not in ("run", "plan", "sweep") or len(words) == 1:
            continue
        model = MODELS[words[1]]
        options = list(itertools.pairwise(words))
        over = [value for option, value in options if option == "--over"]
        Sweep(over=over).cells(model)
        given = [value for option, value in options if option == "--set"]
        run = [value.removeprefix("runtime.") for value in given if value.startswith("runtime.")]
        load_settings(Runtime, "", run)
        load_settings(model, "", [value for value in given if "runtime." not in value])
        for option, value in options:
            if option == "--preset" and not value.endswith(".toml"):
                assert value in preset_names(model), words


def test_scripts_and_their_options_exist(page):
    for words in commands_of(page, "python"):
        if words[0].startswith("benchmarks/"):
            source = (ROOT / words[0]).read_text()
            for option in [word for word in words[1:] if word.startswith("--")]:
                assert re.search(f'"(--)?{option[2:]}"', source), words


def test_targets_of_make_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for words in commands_of(page, "make"):
        assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), words


def test_settings_in_the_readme_are_valid(tmp_path):
    blocks = [text for kind, text in FENCED.findall((ROOT / "README.md").read_text()) if kind]
    assert len(blocks) == 2
    for block in blocks:
        file = tmp_path / "mine.toml"
        file.write_text(block)
        assert load_settings(DPO4RecConfig, str(file)) != DPO4RecConfig()
