"""`make demo` installs the pinned runtime set alone: what a module imports at once is in it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(requirements):
    """The normalised names of packages in a list of requirements."""
    found = (re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in requirements)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


def with_what_they_need(names):
    """These packages and, again and again, what each of them requires without extras."""
    known, todo = set(), set(names)
    while todo:
        known |= todo
        found: set[str] = set()
        for name in todo:
            try:
                needed = requires(name) or []
            except PackageNotFoundError:  # of another platform or Python
                continue
            found |= named(one for one in needed if "extra ==" not in one)
        todo = found - known
    return known


def imported_at_once(file):
    """Top-level packages that a file imports when it is itself imported, not in a function."""
    todo = list(ast.parse(file.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef):
            todo += ast.iter_child_nodes(node)


def test_what_a_module_imports_at_once_is_a_dependency_of_every_installation():
    ours, distributions = {"recalign", "tasks", "flows"}, packages_distributions()
    runtime = with_what_they_need(named(PROJECT["dependencies"]))
    assert "pytest" not in runtime
    missing = {
        (str(file.relative_to(ROOT)), name)
        for layer in ours
        for file in (ROOT / layer).rglob("*.py")
        for name in imported_at_once(file)
        if name not in ours | sys.stdlib_module_names
        and not named(distributions.get(name, [name])) & runtime
    }
    assert missing == set()


def test_every_dependency_is_pinned_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    by_name = {name: pins[pin] for pin in pins for name in named([pin])}
    asked = [Requirement(text) for text in PROJECT["dependencies"]]
    outside = {
        str(one): by_name.get(*named([one.name]))
        for one in asked
        if by_name.get(*named([one.name])) not in one.specifier
    }
    assert outside == {}
