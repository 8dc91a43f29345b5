"""The shape of the project: rooms hold what they say, arrows point downward, names do not clash."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from flows.methods import METHODS
from flows.serving import nightly

ROOT = Path(__file__).parent.parent
LAYERS = ("recalign", "tasks", "flows")
SHARED = {  # what every package of the library may import
    "artifacts", "config", "errors", "lists", "metric_columns", "metrics", "model_files", "parquet",
    "policy", "progress", "ranking", "schemas", "seeding", "sequences", "sweep_tables", "templates",
    "training", "user_text", "words", "writer",
}  # fmt: skip
ROOMS = {  # folder: its files, beside __init__
    "flows": "dpo4rec methods rosepo rounds session sweep",
    "flows/cli": "app comparing inventory runs settings side_by_side sweeps takehome upkeep",
    "flows/serving": "nightly recommend",
    "flows/service": (
        "access automations cancelling database deployments environment patience pool prefect_api "
        "processes record register reports server service"
    ),
    "tasks/engine": (
        "cache device interruption job launch progress provenance run run_names run_page spread "
        "stage tracking trouble"
    ),
}
BESIDE_STAGES = {
    "tables",
    "kar_lists",
    "ranking",
    "encoding",
    "models",
    "rule_texts",
    "writers",
    "kept_texts",
}  # what several stages open
LATE = {"torch", "transformers", "trl", "peft", "datasets", "sentence_transformers"}
"""What takes seconds to load: only bodies of stages do."""
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for layer in LAYERS
    for path in (ROOT / layer).rglob("*.py")
)


def tree_of(module: str) -> ast.Module:
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())


def imports_of(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_there_are_modules_in_every_layer():
    assert {module.split(".")[0] for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_the_files_it_is_for(room):
    files = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    assert files == set(ROOMS[room].split())


def test_the_folders_of_flows_and_tasks_are_these():
    folders = {
        str(path.parent.relative_to(ROOT))
        for layer in ("tasks", "flows")
        for path in (ROOT / layer).rglob("*.py")
    }
    assert folders == {"tasks", *ROOMS}


def test_a_file_of_tasks_is_named_by_the_stage_in_it():
    stages = {stage.name for method in METHODS for stage in method.load().stages}
    stages |= {stage.name for stage in nightly.STAGES}
    stages.add("leaderboard")  # of sweeps
    assert {path.stem for path in (ROOT / "tasks").glob("[!_]*.py")} - BESIDE_STAGES == stages
    for name in stages:
        defined = [node.name for node in tree_of(f"tasks.{name}").body
                   if isinstance(node, ast.FunctionDef)]  # fmt: skip
        assert name in defined


def arrows_of(module: str) -> set[str]:
    """Our modules that this one imports, anywhere in it but for the type checker alone."""
    tree = tree_of(module)
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & set(MODULES)) or {node.module}
    return (found & set(MODULES)) - {module}


def room_of(module: str) -> str:
    """The package that a module lies in; packages and the library's shared files are their own."""
    package, _, _ = module.rpartition(".")
    is_package = (ROOT / Path(*module.split("."))).is_dir()
    return module if is_package or package == "recalign" else package


def test_no_module_imports_itself_by_a_circle():
    TopologicalSorter({module: arrows_of(module) for module in MODULES}).prepare()


def test_no_package_imports_itself_by_a_circle():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        rooms = {room_of(other) for other in arrows_of(module)}
        graph.setdefault(room_of(module), set()).update(rooms - {room_of(module)})
    assert graph["flows.cli"] >= {"flows", "flows.service"}
    TopologicalSorter(graph).prepare()


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


def test_parquet_is_read_by_the_one_module_that_takes_names_as_they_are():
    read = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute)
        and node.attr in {"read_parquet", "read_parquet_schema", "scan_parquet"}
    }
    assert read == {"recalign.parquet"}


def test_every_module_imports():
    for module in MODULES:
        importlib.import_module(module)


def test_no_module_of_a_flow_or_a_command_loads_torch_before_a_stage_computes():
    early = [module for module in MODULES if module.startswith(("tasks", "flows"))]
    code = (
        "import sys, importlib\n"
        f"for name in {early!r}: importlib.import_module(name)\n"
        f"print(*({LATE!r} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300, capture_output=True
    )
    assert done.stdout.split() == []


def test_the_library_imports_with_prefect_blocked():
    library = [module for module in MODULES if module.startswith("recalign")]
    code = (
        "import sys, importlib\n"
        "sys.modules['prefect'] = None\n"
        f"for name in {library!r}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)
