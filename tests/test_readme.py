"""The README's file tree names every file, under its folder, with the file's own first sentence."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path
    for layer in ("flows", "tasks", "recalign", "benchmarks")
    for path in (ROOT / layer).rglob("*.py")
)


def tree():
    """Lines of the README's tree by folder: {"recalign/pairs": {"select.py": "Best ..."}}."""
    folders, lines = {}, {}
    for line in (ROOT / "README.md").read_text().splitlines():
        name, _, text = line.strip().partition(" ")
        if name.endswith("/") and not line.startswith(" "):
            lines = folders.setdefault(name.rstrip("/"), {})
        elif name.endswith(".py"):
            lines[name] = text.strip()
    return folders


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tree_has_a_line_for_every_file(path):
    if path.name == "__init__.py":
        assert str(path.parent.relative_to(ROOT)) in tree()
        return
    first = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0].rstrip(".")
    assert tree()[str(path.parent.relative_to(ROOT))][path.name] == first
