"""Where an artifact was made: commit, packages, memory."""

import functools
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "recalign", "torch", "transformers", "trl", "peft", "polars", "pyarrow",
    "sentence-transformers", "prefect",
)  # fmt: skip


@functools.cache
def git_commit() -> str:
    """Commit of the checkout this code runs from, with "+" when it has changes; "" outside one."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
