"""The shape of the project: arrows point downward, names clash with nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("recalign", "tasks", "flows")
SHARED = {  # what every package of the library may import
    "artifacts", "config", "errors", "metric_columns", "metrics", "progress", "ranking", "schemas",
    "seeding", "sequences", "templates", "training", "writer",
}  # fmt: skip
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for layer in LAYERS
    for path in (ROOT / layer).rglob("*.py")
)


def imports_of(module: str) -> set[str]:
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_there_are_modules_in_every_layer():
    assert {module.split(".")[0] for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module):
    above = LAYERS[LAYERS.index(module.split(".")[0]) + 1 :]
    wrong = {name for name in imports_of(module) if name.split(".")[0] in above}
    if module.startswith("recalign"):
        wrong |= {name for name in imports_of(module) if name.split(".")[0] == "prefect"}
    assert not wrong


@pytest.mark.parametrize("module", [m for m in MODULES if m.count(".") >= 2])
def test_packages_of_the_library_do_not_import_each_other(module):
    if not module.startswith("recalign."):
        pytest.skip("only the library is divided into packages")
    package = module.split(".")[1]
    foreign = {
        name.split(".")[1]
        for name in imports_of(module)
        if name.startswith("recalign.") and name.split(".")[1] not in SHARED | {package}
    }
    assert not foreign


@pytest.mark.parametrize("package", sorted(SHARED))
def test_shared_modules_import_only_shared_modules(package):
    for module in MODULES:
        if module.split(".")[:2] == ["recalign", package]:
            foreign = {
                name.split(".")[1]
                for name in imports_of(module)
                if name.startswith("recalign.") and name.split(".")[1] not in SHARED
            }
            assert not foreign, module


def test_no_module_is_named_like_a_dependency():
    declared = (ROOT / "pyproject.toml").read_text()
    for module in MODULES:
        last = module.split(".")[-1]
        assert f'"{last}' not in declared or last in LAYERS, module


def test_every_module_imports():
    for module in MODULES:
        importlib.import_module(module)


def test_the_library_imports_with_prefect_blocked():
    library = [module for module in MODULES if module.startswith("recalign")]
    code = (
        "import sys, importlib\n"
        "sys.modules['prefect'] = None\n"
        f"for name in {library!r}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)
