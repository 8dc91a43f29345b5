"""Every benchmark script can be started: what it takes from the package is still there."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
IMPORT_ALL = """
import importlib, sys, traceback
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        print(f"benchmarks/{name}.py: {traceback.format_exc()}")
"""


def test_every_script_is_imported_without_an_error():
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert "drift" in names
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        capture_output=True, text=True, check=True, timeout=300,
        env={"PYTHONPATH": f"{BENCHMARKS.parent}:{BENCHMARKS}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout == ""
